"""GenEval: does the picture hold the objects, counts, colours and places that its prompt asks for? A black
box.

Objects come from a detector (``objects``), their colours from CLIP ViT-L/14 on the masked cut-outs.
``geneval`` gives partial credit, as Flow-GRPO trains on; ``geneval_correct`` is the benchmark's own yes or
no.

Source: Ghosh, Hajishirzi, Schmidt, GenEval: An Object-Focused Framework, 2023, with its thresholds; the
    partial
credit is that of Liu et al., Flow-GRPO, 2025.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainers.config import RunConfig
from trainers.prompts import prompt_records
from trainers.rewards.clip import ClipTowers
from trainers.rewards.clip_score import large_towers
from trainers.rewards.contract import Reward
from trainers.rewards.geneval_prompts import COLORS, Request, Thing, read_request
from trainers.rewards.objects import Found, ObjectFinder, read_finder
from trainers.rewards.readable import no_request
from trainers.rewards.weights import OBJECT_FINDER

SCORE, COUNTING_SCORE = 0.3, 0.9
MOST_OBJECTS = 16  # of one class
POSITION_MARGIN = 0.1
GREY = 0x99 / 255
_SENTENCES = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")

Namer = Callable[[Sequence[Found]], list[str]]


class GenEval(Reward):
    """The judgement.

    Args:
        finder: detects objects.
        towers: a CLIP that names colours.
        exact: whether only pictures count that are right in everything.
        records: GenEval's own metadata by prompt, for those that have it.
    """

    def __init__(
        self,
        finder: ObjectFinder,
        towers: ClipTowers,
        exact: bool,
        records: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        self.finder = finder
        self.towers = towers
        self.exact = exact
        self.records = records or {}

    @torch.no_grad()
    def __call__(self, images, prompts, metadata=None):
        records = {**self.records, **(metadata or {})}
        scores = []
        for image, found, prompt in zip(images, self.finder.find(images), prompts, strict=True):
            request = read_request(prompt, records.get(prompt))
            if request is None:
                raise ValueError(no_request(prompt))

            def name_colors(objects: Sequence[Found], image: Tensor = image) -> list[str]:
                return self._colors(image, objects)

            judge = correct if self.exact else credit
            scores.append(float(judge(request, found, name_colors)))
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def _colors(self, image: Tensor, objects: Sequence[Found]) -> list[str]:
        """Name the colour of each object: the likeliest of ten for its cut-out on grey."""
        names = []
        for each in objects:
            left, top, right, bottom = each.box
            alone = torch.where(each.mask.to(image.device), image.float(), GREY)
            look = self.towers.pictures(alone[None, :, top:bottom, left:right])
            names.append(COLORS[int((self._words(each.name) @ look[0]).argmax())])
        return names

    def _words(self, name: str) -> Tensor:
        """Return (10, D), one direction for each colour of a class: the mean of three sentences."""
        texts = [sentence.format(color, name) for color in COLORS for sentence in _SENTENCES]
        embedded = self.towers.captions(texts).view(len(COLORS), len(_SENTENCES), -1).mean(1)
        return torch.nn.functional.normalize(embedded, dim=1)


def _kept(request: Request, found: Sequence[Found], thing: Thing) -> list[Found]:
    lowest = COUNTING_SCORE if request.counting else SCORE
    return [each for each in found if each.name == thing.name and each.score > lowest][:MOST_OBJECTS]


def credit(request: Request, found: Sequence[Found], colors: Namer) -> float:
    """Return the mean over everything asked for of how nearly it is there, in [0, 1].

    A count n of m wanted earns 1 − |n − m|/m, not below 0; a colour or place counts only where the count is
    right.
    """
    parts: list[float] = []
    groups: list[list[Found] | None] = []
    for thing in request.things:
        objects = _kept(request, found, thing)
        parts.append(_near(len(objects), thing.count))
        right = len(objects) == thing.count
        if thing.color:
            parts.append(_near(colors(objects).count(thing.color), thing.count) if right else 0.0)
            right = right and parts[-1] == 1.0
        if thing.position:
            right = right and _placed(objects, thing, groups)
            parts.append(float(right))
        groups.append(objects if right else None)
    return sum(parts) / len(parts)


def correct(request: Request, found: Sequence[Found], colors: Namer) -> bool:
    """Return whether everything is there; more objects than asked for only matter where numbers are asked
    for.
    """
    groups: list[list[Found] | None] = []
    for thing in request.things:
        every = _kept(request, found, thing)
        objects = every[: thing.count]
        right = len(objects) == thing.count and not (request.counting and len(every) > thing.count)
        if right and thing.color:
            right = colors(objects).count(thing.color) >= thing.count
        if right and thing.position:
            right = _placed(objects, thing, groups)
        groups.append(objects if right else None)
    return all(group is not None for group in groups)


def _near(count: int, wanted: int) -> float:
    return max(0.0, 1 - abs(count - wanted) / wanted)


def _placed(objects: Sequence[Found], thing: Thing, groups: Sequence[Sequence[Found] | None]) -> bool:
    targets = groups[thing.target]
    return targets is not None and all(
        thing.position in relations(each.box, target.box) for each in objects for target in targets
    )


def relations(box: Sequence[float], other: Sequence[float]) -> set[str]:
    """Return where a box lies relative to another: left of, right of, above, below, or two of them.

    Centres must be apart by more than a tenth of both sizes together; what remains counts along an axis
    when it is more than half of the distance.
    """
    centres = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (box, other)]
    offset = [centres[0][i] - centres[1][i] for i in range(2)]
    sizes = [abs(box[i + 2] - box[i]) + abs(other[i + 2] - other[i]) for i in range(2)]
    left = [
        math.copysign(max(abs(o) - POSITION_MARGIN * s, 0.0), o) for o, s in zip(offset, sizes, strict=True)
    ]
    if max(map(abs, left)) < 1e-3:
        return set()
    dx, dy = (part / math.hypot(*offset) for part in left)
    names = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}
    return {name for name, share in names.items() if share > 0.5}


def load_partial(device: str = "cpu", config: RunConfig | None = None) -> GenEval:
    """Return the reward with partial credit, with the metadata of the config's prompt sets."""
    return _load(device, False, config)


def load_exact(device: str = "cpu", config: RunConfig | None = None) -> GenEval:
    """Return the yes-or-no reward."""
    return _load(device, True, config)


def _load(device: str, exact: bool, config: RunConfig | None) -> GenEval:
    records = prompt_records(config) if config else {}
    return GenEval(read_finder(OBJECT_FINDER.folder(), device), large_towers(device), exact, records)
