"""The caption grammar, in the categories of GenEval, and the exact held-out split.

A caption names at most four objects of three shapes and six colours. Its *combination* is the tuple
(objects, relation or count). Held-out combinations never occur as a caption in pre-training or in the
training prompts:

* ``single_object``: the bare caption "a triangle";
* ``colors`` and "one …": the lone objects in ``HELDOUT_LONE``, one per shape;
* ``counting`` from two on: (count, colour, shape) where the sum of their indices is a multiple of four
  (13 of 54);
* ``position`` and ``color_attr``: unordered coloured pairs whose two object numbers (3 * colour + shape)
  add up to a multiple of five (30 of 153), for every relation and both orders;
* ``two_object``: the plain pair {circle, triangle}, and (coloured, plain) combinations where colour index
  plus plain shape's index is a multiple of three (12 of 36), in both orders.

Sums spread the split evenly: each of the 18 coloured objects misses three or four of its 17 partners.

For fully specified combinations (lone object, counted objects, coloured pair) the *picture* is held out
too: ``picture_is_heldout`` tells, and no pre-training scene of any category shows one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle")
COLORS = ("red", "yellow", "green", "cyan", "blue", "purple")
COUNTS = ("one", "two", "three", "four")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CATEGORIES = ("single_object", "colors", "counting", "two_object", "position", "color_attr")

HELDOUT_LONE = frozenset({("yellow", "circle"), ("purple", "square"), ("green", "triangle")})
HELDOUT_PLAIN_PAIR = frozenset({"circle", "triangle"})

_NOUN = rf"(?:({'|'.join(COLORS)}) )?({'|'.join(SHAPES)})"
_SINGLE = re.compile(rf"a {_NOUN}")
_COUNTED = re.compile(rf"({'|'.join(COUNTS)}) ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})(s?)")
_PAIR = re.compile(rf"a {_NOUN} ({'|'.join(RELATIONS)}|and) a {_NOUN}")


@dataclass(frozen=True, order=True)
class ObjectSpec:
    """One kind of object that a caption asks for; ``color`` is empty when any colour will do."""

    shape: str
    color: str = ""

    def __str__(self) -> str:
        """Return the noun phrase without article, for example "red circle"."""
        return f"{self.color} {self.shape}".strip()


@dataclass(frozen=True)
class CaptionSpec:
    """The meaning of a caption.

    Args:
        category: one of ``CATEGORIES``.
        objects: the named kinds of objects, in caption order (one, or two for pair captions).
        relation: one of ``RELATIONS`` for ``position``, else empty.
        count: how many of ``objects[0]``, 1 unless the category is ``counting``.
    """

    category: str
    objects: tuple[ObjectSpec, ...]
    relation: str = ""
    count: int = 1

    @property
    def required(self) -> tuple[ObjectSpec, ...]:
        """Return one entry per object that the picture must show."""
        return self.objects * self.count if len(self.objects) == 1 else self.objects


def parse(prompt: str) -> CaptionSpec:
    """Read a caption; case, extra white space and a trailing full stop do not matter.

    Args:
        prompt: text such as "a red circle left of a blue square".

    Returns:
        The caption's meaning; ``render_caption`` is its inverse.

    Raises:
        ValueError: the text is outside the grammar; the message shows what is inside.
    """
    text = " ".join(prompt.lower().strip().rstrip(".").split())
    if match := _SINGLE.fullmatch(text):
        noun = ObjectSpec(match[2], match[1] or "")
        return CaptionSpec("colors" if noun.color else "single_object", (noun,))
    if (match := _COUNTED.fullmatch(text)) and (match[1] == "one") == (not match[4]):
        return CaptionSpec("counting", (ObjectSpec(match[3], match[2]),), count=COUNTS.index(match[1]) + 1)
    if match := _PAIR.fullmatch(text):
        spec = _pair(ObjectSpec(match[2], match[1] or ""), match[3], ObjectSpec(match[5], match[4] or ""))
        if spec is not None:
            return spec
    raise ValueError(
        f"Cannot read {prompt!r} as a shapes caption. Write for example 'a circle', 'a red circle', "
        "'three green triangles', 'a red circle and a square', 'a red circle left of a blue square' or "
        f"'a red circle and a blue square', with shapes {', '.join(SHAPES)}, colours {', '.join(COLORS)}, "
        f"relations {', '.join(RELATIONS)}, counts one to four; the two objects of a pair must differ, "
        "in shape if one of them has no colour."
    )


def _pair(first: ObjectSpec, word: str, second: ObjectSpec) -> CaptionSpec | None:
    coloured = bool(first.color) and bool(second.color)
    if word != "and":
        if not coloured or first == second:
            return None
        return CaptionSpec("position", (first, second), relation=word)
    if coloured:
        return None if first == second else CaptionSpec("color_attr", (first, second))
    # Without both colours only the shapes tell the two objects apart.
    return None if first.shape == second.shape else CaptionSpec("two_object", (first, second))


def render_caption(spec: CaptionSpec) -> str:
    """Write the caption of a spec; ``parse(render_caption(spec)) == spec``."""
    if spec.category == "counting":
        return f"{COUNTS[spec.count - 1]} {spec.objects[0]}{'s' if spec.count > 1 else ''}"
    if len(spec.objects) == 1:
        return f"a {spec.objects[0]}"
    return f"a {spec.objects[0]} {spec.relation or 'and'} a {spec.objects[1]}"


def is_heldout(spec: CaptionSpec) -> bool:
    """Return whether the combination of a caption is held out of pre-training (see the module docstring)."""
    if spec.category == "single_object":
        return spec.objects[0].shape == "triangle"
    if spec.category == "two_object":
        plain = {noun.shape for noun in spec.objects if not noun.color}
        if len(plain) == 2:
            return plain == HELDOUT_PLAIN_PAIR
        coloured = next(noun for noun in spec.objects if noun.color)
        return (COLORS.index(coloured.color) + SHAPES.index(plain.pop())) % 3 == 0
    return picture_is_heldout(spec.required)


def picture_is_heldout(objects: Sequence[ObjectSpec]) -> bool:
    """Return whether a picture of exactly these coloured objects is held out of pre-training."""
    kinds = sorted(set(objects))
    if len(kinds) == 2:
        return sum(3 * COLORS.index(kind.color) + SHAPES.index(kind.shape) for kind in kinds) % 5 == 0
    if len(objects) == 1:
        return (kinds[0].color, kinds[0].shape) in HELDOUT_LONE
    return (len(objects) - 2 + COLORS.index(kinds[0].color) + SHAPES.index(kinds[0].shape)) % 4 == 0
