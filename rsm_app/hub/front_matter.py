"""A model card's metadata as YAML that means the same to every reader.

The library writes what YAML 1.1 reads as text without quotes. The Hub reads YAML 1.2, to which ``2e5``,
``1.5e3`` and ``0o17`` are numbers, so such names and prompts are quoted here; and a text of several lines is
escaped, so that none of them can end the block.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

# The core schema of YAML 1.2 (section 10.3.2), as far as 1.1 reads it otherwise.
_NUMBER = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


class _Dumper(yaml.SafeDumper):
    """Writes texts that some reader would take for something else, or for the end, in quotes."""


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    quoted = _NUMBER.fullmatch(value) or any(
        ord(letter) < 32 or letter in "\x85\u2028\u2029" for letter in value
    )
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if quoted else None)


_Dumper.add_representer(str, _text)


def front_matter(data: dict[str, Any]) -> str:
    """Return metadata as the block that begins a card, with its two lines of dashes.

    Args:
        data: As ``ModelCardData.to_dict`` returns it.
    """
    body = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)
    return f"---\n{body}---\n"
