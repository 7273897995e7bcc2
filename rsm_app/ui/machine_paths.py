"""Texts for visitors without the folders of this machine: of a path its last part says enough.

Settings and reports go through ``without_folders``, whose values are paths or none; this is for sentences.
"""

from __future__ import annotations

import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path

from rsm_app.jobs.places import ROOT, runs_directory

# A web address, which stays; what stands in quotes, spaces and all; and what else goes from the root or the
# home over one folder at least, after the name of a scheme without a host ("file:///", "cache:/") as well.
# Neither "and/or" nor "runs/first" is one.
_PART = r"[^\s/'\"`<>|;:,()\[\]{}]"
_ADDRESS = r"\b(?!file:)[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s/=?#'\"`<>]+[^\s=?#'\"`<>]*"
_SCHEME = r"(?:\bfile:(?://[\w.-]*(?=/))?|(?<=:)//+(?=/))"
_START = rf"(?<![\w/.~*-])(?:{_SCHEME})?"
_QUOTED = "|".join(
    rf"(?<!\w){quotes[0]}(?:\w{{1,30}}:(?:/{{2,}}(?=/))?)?(?:~{_PART}*)?/[^/{quotes}\n]+/[^{quotes}\n]*{quotes[1]}"
    for quotes in ("''", '""', "``", "‘’", "“”", "«»")
)
_PATH = re.compile(
    rf"(?P<address>{_ADDRESS})|(?P<quoted>{_QUOTED})|{_START}(?:~{_PART}*/|/{_PART}+/)(?:{_PART}+/)*{_PART}*"
)


def without_paths(text: str) -> str:
    """Return a text in which every path of this machine is cut down to its last part."""
    for folder in _folders():
        text = text.replace(f"{folder}{os.sep}", "/./")
    return _PATH.sub(_last_part, text)


def _last_part(found: re.Match) -> str:
    text = found[0]
    if found["address"]:
        return text
    if found["quoted"]:
        return text[0] + text[1:-1].rstrip("/").rpartition("/")[2] + text[-1]
    path = text.rstrip(".!?")
    return path.rstrip("/").rpartition("/")[2] + text[len(path) :]


@lru_cache(maxsize=1)
def _folders() -> tuple[str, ...]:
    """Return the folders whose names may hold spaces, which a sentence does not tell apart, longest first."""
    named = {runs_directory(), ROOT, Path.home(), Path(tempfile.gettempdir())}
    found = {str(path) for one in named for path in (one.absolute(), one.resolve())} - {"/"}
    return tuple(sorted(found, key=len, reverse=True))
