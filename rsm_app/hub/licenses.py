"""Licenses as a model card names them: the Hub's identifiers, and how else people spell them.

The Hub refuses a card whose ``license`` is not one of its identifiers; whatever else a base model says
becomes ``other`` with a ``license_name``. The list is that of huggingface.co/docs/hub/repositories-licenses;
one that is missing here only costs the identifier, never the name.
"""

from __future__ import annotations

import re

OTHER = "other"
_SPELLINGS = {
    "apache-2.0": ("Apache", "Apache 2", "Apache License Version 2.0"),
    "mit": ("Expat",),
    "openrail": (),
    "bigscience-openrail-m": (),
    "creativeml-openrail-m": ("CreativeML OpenRAIL", "CreativeML Open RAIL-M"),
    "bigscience-bloom-rail-1.0": (),
    "bigcode-openrail-m": ("BigCode Open RAIL-M v1",),
    "afl-3.0": ("Academic Free License v3.0",),
    "artistic-2.0": (),
    "bsl-1.0": ("Boost Software License 1.0", "Boost 1.0"),
    "bsd": (),
    "bsd-2-clause": ("2-Clause BSD", "Simplified BSD", "BSD 2"),
    "bsd-3-clause": ("3-Clause BSD", "New BSD", "Modified BSD", "Revised BSD", "BSD 3"),
    "bsd-3-clause-clear": (),
    "c-uda": ("Computational Use of Data Agreement",),
    "cc": ("Creative Commons",),
    "cc0-1.0": ("CC0", "CC Zero", "Creative Commons Zero 1.0"),
    **{f"cc-by-{version}": () for version in ("2.0", "2.5", "3.0", "4.0")},
    **{f"cc-by-sa-{version}": () for version in ("3.0", "4.0")},
    **{f"cc-by-nc-{version}": () for version in ("2.0", "3.0", "4.0")},
    "cc-by-nd-4.0": (),
    **{f"cc-by-nc-nd-{version}": () for version in ("3.0", "4.0")},
    **{f"cc-by-nc-sa-{version}": () for version in ("2.0", "3.0", "4.0")},
    "cdla-sharing-1.0": (),
    "cdla-permissive-1.0": (),
    "cdla-permissive-2.0": (),
    "wtfpl": (),
    "ecl-2.0": ("Educational Community License v2.0",),
    "epl-1.0": ("Eclipse Public License 1.0",),
    "epl-2.0": ("Eclipse Public License 2.0",),
    "etalab-2.0": ("Etalab Open License 2.0",),
    "eupl-1.1": ("European Union Public License 1.1",),
    "agpl-3.0": ("GNU AGPL 3.0", "GNU Affero General Public License v3.0"),
    "gfdl": ("GNU Free Documentation License",),
    "gpl": ("GNU GPL", "GNU General Public License"),
    "gpl-2.0": ("GNU GPL 2.0", "GNU General Public License v2.0"),
    "gpl-3.0": ("GNU GPL 3.0", "GNU General Public License v3.0"),
    "lgpl": ("GNU LGPL", "GNU Lesser General Public License"),
    "lgpl-2.1": ("GNU LGPL 2.1", "GNU Lesser General Public License v2.1"),
    "lgpl-3.0": ("GNU LGPL 3.0", "GNU Lesser General Public License v3.0"),
    "isc": (),
    "lppl-1.3c": (),
    "ms-pl": ("Microsoft Public License",),
    "apple-ascl": (),
    "apple-amlr": (),
    "mpl-2.0": ("Mozilla Public License 2.0",),
    "odc-by": (),
    "odbl": ("Open Database License",),
    "openrail++": ("OpenRAIL++-M", "CreativeML OpenRAIL++-M"),
    "osl-3.0": ("Open Software License 3.0",),
    "postgresql": (),
    "ofl-1.1": ("SIL Open Font License 1.1", "SIL OFL 1.1"),
    "ncsa": (),
    "unlicense": (),
    "zlib": (),
    "pddl": (),
    "lgpl-lr": (),
    "deepfloyd-if-license": (),
    "llama2": (),
    "llama3": (),
    "llama3.1": (),
    "llama3.2": (),
    "llama3.3": (),
    "gemma": (),
    "unknown": (),
    OTHER: (),
}
LICENSES = frozenset(_SPELLINGS)
_LONGEST_NAME = 96
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9.-]+")
_SILENT_WORDS = {"license", "licence", "licensed", "under", "the", "version", "only", "international"}
_SILENT_WORDS |= {"unported", "universal"}
_LONG_FORMS = (  # of the parts of Creative Commons
    ("creative commons", "cc"),
    ("attribution", "by"),
    ("non commercial", "nc"),
    ("noncommercial", "nc"),
    ("share alike", "sa"),
    ("sharealike", "sa"),
    ("no derivatives", "nd"),
    ("noderivatives", "nd"),
    ("noderivs", "nd"),
)


def license_id(text: str) -> str | None:
    """Return the Hub's identifier of a license, however it is spelled; None when the Hub has none for it."""
    return _BY_KEY.get(_key(text))


def license_name(text: str) -> str:
    """Return a license as a card's ``license_name`` may spell it; empty when nothing of it can be kept."""
    first = next(iter(text.strip().splitlines()), "")
    return re.sub(r"-{2,}", "-", _NOT_IN_A_NAME.sub("-", first.lower()))[:_LONGEST_NAME].strip("-.")


def _key(text: str) -> str:
    """Return what all spellings share: letters and numbers, versions without 'v' and final '.0'."""
    text = re.sub(r"\([^()]*\)\s*$", "", text.lower())  # "The MIT License (MIT)"
    words = " ".join(re.findall(r"[^\W_]+(?:\.[^\W_]+)*\+*", text))
    for long, short in _LONG_FORMS:
        words = words.replace(long, short)
    kept = "".join(word for word in words.split() if word not in _SILENT_WORDS)
    kept = re.sub(r"v(?=\d)", "", kept)
    return re.sub(r"(?<=\d)(\.0)+$", "", kept)


_BY_KEY = {_key(spelled): name for name, others in _SPELLINGS.items() for spelled in (name, *others)}
