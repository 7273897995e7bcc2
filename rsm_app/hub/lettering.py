"""Prompts as captions in pictures: what the font can show, and something legible for the rest.

The font is matplotlib's own, so that a card looks alike on every machine: Latin, Cyrillic, Greek, Arabic and
Hebrew, but neither Chinese, Japanese and Korean nor most emoji. A box in the place of a letter says nothing,
so a caption with such letters is a number, under which the card's text repeats the prompt.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path

from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from PIL import ImageFont, features

from trainers.terminal import printable

_RIGHT_TO_LEFT = ("R", "AL", "AN")
_SILENT = ("Mn", "Me", "Cf", "Sk")  # marks on the letter before, joiners, variation selectors, skin tones


@lru_cache(maxsize=4)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font of captions; it sets right-to-left text where Pillow can."""
    return ImageFont.truetype(str(_file()), size)


def caption(text: str, number: int) -> str:
    """Return one line that the font shows: the text with emoji by name, or ``Prompt N``."""
    shown = _named(text)
    return shown if shown.strip() and _drawable(shown) else f"Prompt {number}"


def shows(text: str) -> bool:
    """Whether a caption shows a text as it is."""
    return bool(text.strip()) and caption(text, 0) == " ".join(printable(text).split())


def label(text: str, instead: str) -> str:
    """Return a plot's label, which is always set from left to right; ``instead`` where that shows nothing."""
    plain = " ".join(printable(text).split())
    left_to_right = not any(map(_from_right, plain))
    return plain if plain and left_to_right and _drawable(plain) else instead


def wrapped(text: str, size: int, width: int, lines: int = 2) -> list[str]:
    """Cut text into lines of a width in pixels; the last one ends in an ellipsis where more would follow."""
    letters, found, words = font(size), [""], text.split()
    while words:
        word = words.pop(0)
        longer = f"{found[-1]} {word}".strip()
        if letters.getlength(longer) <= width:
            found[-1] = longer
        elif not found[-1] or len(found) == lines:  # a word as wide as a line, or no line left
            return [*found[:-1], _cut(longer, letters, width)]
        else:
            found.append("")
            words.insert(0, word)
    return [line for line in found if line]


def _cut(text: str, letters: ImageFont.FreeTypeFont, width: int) -> str:
    while text and letters.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _named(text: str) -> str:
    """Return text in one line, with every sign that the font lacks by its name, in brackets."""
    parts = []
    for sign in " ".join(printable(text).split()):
        if ord(sign) in _signs() or unicodedata.category(sign)[0] in "LN":
            parts.append(sign)
        elif unicodedata.category(sign) not in _SILENT:
            name = unicodedata.name(sign, "sign").lower()
            parts.append(f"[{name.removeprefix('regional indicator symbol letter ')}]")
    return "".join(parts)


def _drawable(text: str) -> bool:
    if any(map(_from_right, text)) and not features.check("raqm"):
        return False
    return all(ord(sign) in _signs() or unicodedata.category(sign) in _SILENT for sign in text)


def _from_right(sign: str) -> bool:
    return unicodedata.bidirectional(sign) in _RIGHT_TO_LEFT


@lru_cache(maxsize=1)
def _signs() -> frozenset[int]:
    return frozenset(FT2Font(str(_file())).get_charmap())


def _file() -> Path:
    return Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
