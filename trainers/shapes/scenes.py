"""From a caption to geometry: which objects, where, how large, in which exact colour.

Lengths are fractions of the picture's side, x to the right, y down, (x, y) the centre of mass. Objects never
overlap: their bounding boxes keep a gap. Position, size, saturation, brightness and the background's
grey level are nuisance variation on purpose, so that later fine-tuning has something harmless to move.
Captions sampled without a spec come from pre-training's distribution and are never held out.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from trainers.shapes.grammar import (
    COLORS,
    OPPOSITE,
    SHAPES,
    CaptionSpec,
    ObjectSpec,
    is_heldout,
    picture_is_heldout,
)

HUES = {"red": 0.0, "yellow": 55.0, "green": 120.0, "cyan": 180.0, "blue": 230.0, "purple": 288.0}
SATURATION, BRIGHTNESS, BACKGROUND = (0.65, 1.0), (0.78, 1.0), (0.86, 1.0)
HUE_JITTER = 5.0
# Half-height range by number of objects: more objects, smaller ones.
SIZES = {1: (0.15, 0.22), 2: (0.135, 0.185), 3: (0.12, 0.15), 4: (0.11, 0.135)}
GAP, BORDER = 0.06, 0.02
# Bounding box around the centre of mass, in units of the size: left, top, right, bottom. All three shapes
# have about the same area for the same size.
BOXES = {
    "circle": (1.0, 1.0, 1.0, 1.0),
    "square": (0.9, 0.9, 0.9, 0.9),
    "triangle": (1.2, 1.386, 1.2, 0.693),
}
# A relation is drawn only when its axis clearly dominates; the checker accepts up to the diagonal.
DOMINANCE = 1.25
CATEGORY_WEIGHTS = {
    "single_object": 0.10,
    "colors": 0.14,
    "counting": 0.21,
    "two_object": 0.12,
    "position": 0.27,
    "color_attr": 0.16,
}


@dataclass(frozen=True)
class SceneObject:
    """One drawn object: kind, exact RGB in [0, 1], centre of mass and size as fractions of the side."""

    shape: str
    color: str
    rgb: tuple[float, float, float]
    x: float
    y: float
    size: float

    @property
    def kind(self) -> ObjectSpec:
        """Return shape and colour name."""
        return ObjectSpec(self.shape, self.color)


@dataclass(frozen=True)
class Scene:
    """A picture's content: its objects (caption order first), background grey in [0, 1], and its caption."""

    objects: tuple[SceneObject, ...]
    background: float
    spec: CaptionSpec


def sample_spec(rng: np.random.Generator) -> CaptionSpec:
    """Draw a caption from pre-training's distribution; never a held-out one."""
    names = tuple(CATEGORY_WEIGHTS)
    while True:
        category = names[rng.choice(len(names), p=tuple(CATEGORY_WEIGHTS.values()))]
        spec = _spec_of(category, rng)
        if spec is not None and not is_heldout(spec):
            return spec


def _spec_of(category: str, rng: np.random.Generator) -> CaptionSpec | None:
    first, second = _kind(rng), _kind(rng)
    if category == "single_object":
        return CaptionSpec(category, (ObjectSpec(first.shape),))
    if category == "colors":
        return CaptionSpec(category, (first,))
    if category == "counting":
        return CaptionSpec(category, (first,), count=int(rng.integers(1, 5)))
    if category == "two_object":
        plain = rng.integers(3)
        pair = tuple(
            ObjectSpec(k.shape, "" if plain in (2, i) else k.color) for i, k in enumerate((first, second))
        )
        return None if first.shape == second.shape else CaptionSpec(category, pair)
    if first == second:
        return None
    relation = tuple(OPPOSITE)[rng.integers(4)] if category == "position" else ""
    return CaptionSpec(category, (first, second), relation=relation)


def _kind(rng: np.random.Generator) -> ObjectSpec:
    return ObjectSpec(SHAPES[rng.integers(len(SHAPES))], COLORS[rng.integers(len(COLORS))])


def sample_scene(rng: np.random.Generator, spec: CaptionSpec | None = None) -> Scene:
    """Draw a scene that satisfies a caption.

    Args:
        rng: the only source of randomness.
        spec: the caption; ``None`` draws one from pre-training's distribution.

    Returns:
        A scene whose picture is held out only if ``spec`` is itself fully specified and held out.
    """
    spec = sample_spec(rng) if spec is None else spec
    kinds = _fill_colors(spec, rng)
    low, high = SIZES[len(kinds)]
    while True:
        placed = _place(kinds, low, high, rng)
        if placed is not None and _relation_is_clear(spec.relation, placed):
            break
    objects = tuple(
        SceneObject(kind.shape, kind.color, _rgb(kind.color, rng), *place)
        for kind, place in zip(kinds, placed, strict=True)
    )
    return Scene(objects, float(rng.uniform(*BACKGROUND)), spec)


def _fill_colors(spec: CaptionSpec, rng: np.random.Generator) -> tuple[ObjectSpec, ...]:
    if all(noun.color for noun in spec.objects):
        return spec.required
    while True:
        kinds = tuple(
            noun if noun.color else ObjectSpec(noun.shape, _kind(rng).color) for noun in spec.required
        )
        if not picture_is_heldout(kinds):
            return kinds


def _place(kinds: tuple[ObjectSpec, ...], low: float, high: float, rng: np.random.Generator) -> list | None:
    """Drop the objects one by one; give up (``None``) after a few tries so that the caller starts afresh."""
    placed: list[tuple[float, float, float]] = []
    boxes: list[tuple[float, float, float, float]] = []
    for kind in kinds:
        left, top, right, bottom = BOXES[kind.shape]
        for draw in rng.random((12, 3)):
            size = low + (high - low) * draw[0]
            x = BORDER + size * left + (1 - 2 * BORDER - size * (left + right)) * draw[1]
            y = BORDER + size * top + (1 - 2 * BORDER - size * (top + bottom)) * draw[2]
            box = (x - size * left, y - size * top, x + size * right, y + size * bottom)
            if not any(_touch(box, other) for other in boxes):
                placed.append((float(x), float(y), float(size)))
                boxes.append(box)
                break
        else:
            return None
    return placed


def _touch(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] + GAP and b[0] < a[2] + GAP and a[1] < b[3] + GAP and b[1] < a[3] + GAP


def relation_of(dx: float, dy: float, dominance: float = DOMINANCE) -> str:
    """Return the relation of an object displaced by (dx, dy) from another, or "" when no axis dominates."""
    if abs(dx) >= dominance * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= dominance * abs(dx):
        return "above" if dy < 0 else "below"
    return ""


def _relation_is_clear(relation: str, placed: list) -> bool:
    if not relation:
        return True
    (ax, ay, _), (bx, by, _) = placed
    return relation_of(ax - bx, ay - by) == relation


def _rgb(color: str, rng: np.random.Generator) -> tuple[float, float, float]:
    hue = HUES[color] + rng.uniform(-HUE_JITTER, HUE_JITTER)
    return colorsys.hsv_to_rgb(hue % 360 / 360, rng.uniform(*SATURATION), rng.uniform(*BRIGHTNESS))


def sample_caption(scene: Scene, rng: np.random.Generator) -> CaptionSpec:
    """Draw another true caption of a scene, so that one picture teaches several; never held out.

    A pair may be described by its relation (if clear), by its colours or with colours left out, in either
    order; one object as itself, as "one …" or without its colour.
    """
    if len(scene.objects) > 2 or len({obj.kind for obj in scene.objects}) < len(scene.objects):
        return scene.spec
    while True:
        spec = _redescribe(scene, rng)
        if spec is not None and not is_heldout(spec):
            return spec


def _redescribe(scene: Scene, rng: np.random.Generator) -> CaptionSpec | None:
    kinds = [obj.kind for obj in scene.objects]
    if len(kinds) == 1:
        category = ("single_object", "colors", "counting")[rng.integers(3)]
        noun = ObjectSpec(kinds[0].shape) if category == "single_object" else kinds[0]
        return CaptionSpec(category, (noun,))
    order = (0, 1) if rng.random() < 0.5 else (1, 0)
    first, second = scene.objects[order[0]], scene.objects[order[1]]
    draw = rng.random()
    if draw < 0.5:
        relation = relation_of(first.x - second.x, first.y - second.y)
        return CaptionSpec("position", (first.kind, second.kind), relation=relation) if relation else None
    if draw < 0.8:
        return CaptionSpec("color_attr", (first.kind, second.kind))
    if first.shape == second.shape:
        return None
    plain = rng.integers(3)
    nouns = (ObjectSpec(o.shape, "" if plain in (2, i) else o.color) for i, o in enumerate((first, second)))
    return CaptionSpec("two_object", tuple(nouns))


def true_captions(scene: Scene) -> frozenset[CaptionSpec]:
    """Return every caption that is true of a scene, held-out ones and unclear relations included."""
    kinds = [obj.kind for obj in scene.objects]
    first = kinds[0]
    if len(set(kinds)) == 1:
        true = {CaptionSpec("counting", (first,), count=len(kinds))}
        if len(kinds) == 1:
            true |= {
                CaptionSpec("colors", (first,)),
                CaptionSpec("single_object", (ObjectSpec(first.shape),)),
            }
        return frozenset(true)
    true = set()
    for a, b in (scene.objects, scene.objects[::-1]):
        relation = relation_of(a.x - b.x, a.y - b.y, dominance=1.0)
        true |= {
            CaptionSpec("color_attr", (a.kind, b.kind)),
            CaptionSpec("position", (a.kind, b.kind), relation),
        }
        if a.shape != b.shape:
            plain_a, plain_b = ObjectSpec(a.shape), ObjectSpec(b.shape)
            pairs = ((plain_a, plain_b), (a.kind, plain_b), (plain_a, b.kind))
            true |= {CaptionSpec("two_object", pair) for pair in pairs}
    return frozenset(true)
