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

# From the root or the home, with one folder at least; neither an address, whose slashes a colon precedes, nor
# "and/or" nor "runs/first".
_PART = r"[^\s/'\"`<>|;:,()\[\]{}]"
_PATH = re.compile(rf"(?<![\w:/.~*-])(?:~{_PART}*/|/{_PART}+/)(?:{_PART}+/)*{_PART}*")


def without_paths(text: str) -> str:
    """Return a text in which every path of this machine is cut down to its last part."""
    for folder in _folders():
        text = text.replace(f"{folder}{os.sep}", "/./")
    return _PATH.sub(_last_part, text)


def _last_part(found: re.Match) -> str:
    path = found[0].rstrip(".!?")
    return path.rstrip("/").rpartition("/")[2] + found[0][len(path) :]


@lru_cache(maxsize=1)
def _folders() -> tuple[str, ...]:
    """Return the folders whose names may hold spaces, which a sentence does not tell apart, longest first."""
    named = {runs_directory(), ROOT, Path.home(), Path(tempfile.gettempdir())}
    found = {str(path) for one in named for path in (one.absolute(), one.resolve())} - {"/"}
    return tuple(sorted(found, key=len, reverse=True))
