"""The two prompt files: every caption of the grammar, split by the held-out rule, balanced in any prefix."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random

from trainers.shapes.grammar import (
    CATEGORIES,
    COLORS,
    RELATIONS,
    SHAPES,
    CaptionSpec,
    ObjectSpec,
    is_heldout,
    parse,
    render_caption,
)

HELDOUT_SHARES = {
    "position": 66,
    "color_attr": 52,
    "two_object": 26,
    "counting": 24,
    "colors": 3,
    "single_object": 1,
}
TRAIN_SHARES = {
    "position": 130,
    "color_attr": 90,
    "two_object": 50,
    "counting": 50,
    "colors": 15,
    "single_object": 2,
}
_SEED = 7


def all_captions() -> list[CaptionSpec]:
    """Return every caption of the grammar, in a fixed order."""
    nouns = [ObjectSpec(shape, color) for color in COLORS for shape in SHAPES]
    plain = [ObjectSpec(shape) for shape in SHAPES]
    texts = [f"a {noun}" for noun in (*plain, *nouns)]
    captions = [parse(text) for text in texts]
    captions += [CaptionSpec("counting", (noun,), count=count) for count in range(1, 5) for noun in nouns]
    for first, second in itertools.permutations((*plain, *nouns), 2):
        if first.color and second.color:
            captions.append(CaptionSpec("color_attr", (first, second)))
            captions += [
                CaptionSpec("position", (first, second), relation=relation) for relation in RELATIONS
            ]
        elif first.shape != second.shape:
            captions.append(CaptionSpec("two_object", (first, second)))
    return captions


def choose(heldout: bool) -> list[str]:
    """Return the prompts of one side of the split: a fixed number per category, interleaved."""
    shares = HELDOUT_SHARES if heldout else TRAIN_SHARES
    random = Random(_SEED)
    placed: list[tuple[float, int, str]] = []
    for category in CATEGORIES:
        own = [spec for spec in all_captions() if spec.category == category and is_heldout(spec) == heldout]
        random.shuffle(own)
        own = own[: shares[category]]
        # Entry i of n sits at (i + ½) / n of the file, so every prefix is balanced.
        for index, spec in enumerate(own):
            placed.append(((index + 0.5) / len(own), CATEGORIES.index(category), render_caption(spec)))
    return [text for _, _, text in sorted(placed)]


def write_prompts(folder: Path) -> list[Path]:
    """Write ``shapes-train.txt`` and ``shapes-heldout.txt``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, heldout in (("train", False), ("heldout", True)):
        path = folder / f"shapes-{name}.txt"
        what = "held out of pre-training and of the training prompts" if heldout else "seen in pre-training"
        lines = [f"# Captions {what}. Written by: python -m trainers.shapes prompts", *choose(heldout)]
        path.write_text("\n".join(lines) + "\n")
        written.append(path)
    return written
