"""Objects in pictures: COCO classes with masks and boxes, found by a Mask2Former. A black box.

The architecture that GenEval uses, in transformers and with the weights of its authors (GenEval runs the
copy of another library). Leaves out the image processor class: pictures of one size are resized and padded
as one batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Mask2FormerForUniversalSegmentation

from trainers.errors import FaultError
from trainers.rewards.clip import damaged
from trainers.rewards.geneval_prompts import OBJECTS

SHORTEST, LONGEST, DIVISOR = 800, 1333, 32
TOGETHER = 8  # pictures; enlarged as they are, more would take gigabytes, and so would all their masks
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LOWEST_SCORE = 0.3  # anything below never counts


@dataclass(frozen=True)
class Found:
    """One object in one picture.

    Attributes:
        name: Its class, one of ``OBJECTS``.
        score: Confidence in [0, 1]: of the class times of the mask.
        box: Left, top, right, bottom in pixels; right and bottom are the first beyond it.
        mask: (H, W) bool.
    """

    name: str
    score: float
    box: tuple[int, int, int, int]
    mask: Tensor


class ObjectFinder:
    """The detector.

    Args:
        model: with COCO's 80 classes in COCO's order.
        shortest: pixels of the shorter side that it reads.
        device: where it runs.
    """

    def __init__(self, model: Mask2FormerForUniversalSegmentation, shortest: int, device: str):
        self.model = model.to(device).eval().requires_grad_(False)
        self.shortest = shortest

    def find(self, images: Tensor) -> Iterator[list[Found]]:
        """Yield the objects of each picture, surest first; few pictures are looked at at once.

        Args:
            images: (B, 3, H, W) in [0, 1].
        """
        for part in images.split(TOGETHER):
            yield from self._find(part)

    @torch.no_grad()
    def _find(self, images: Tensor) -> list[list[Found]]:
        device = next(self.model.parameters()).device
        height, width = images.shape[-2:]
        pixels, mask = self._pixels(images.detach().to(device).float())
        output = self.model(pixel_values=pixels, pixel_mask=mask)
        resized = int(mask[0].any(1).sum()), int(mask[0].any(0).sum())
        found = []
        for logits, masks in zip(output.class_queries_logits, output.masks_queries_logits, strict=True):
            scores, queries, classes = _best(logits)
            if not len(scores):
                found.append([])
                continue
            full = F.interpolate(masks[None, queries], pixels.shape[-2:], mode="bilinear")
            full = full[..., : resized[0], : resized[1]]
            full = F.interpolate(full, (height, width), mode="bilinear")[0]
            found.append(_objects(scores, classes, full))
        return found

    def _pixels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Resize, normalise, and pad to whole multiples of the network's stride."""
        height, width = images.shape[-2:]
        scale = self.shortest / min(height, width)
        scale = min(scale, self.shortest * LONGEST / SHORTEST / max(height, width))
        size = round(height * scale), round(width * scale)
        resized = F.interpolate(images, size, mode="bilinear", antialias=True)
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        below, right = (-side % DIVISOR for side in size)
        mask = torch.ones(len(images), *size, dtype=torch.long, device=images.device)
        return F.pad((resized - mean) / std, (0, right, 0, below)), F.pad(mask, (0, right, 0, below))


def _best(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return score, query and class of the surest (query, class) pairs, as many as there are queries at
    most.
    """
    scores = logits.softmax(-1)[:, :-1]  # the last class is "nothing"
    flat, order = scores.flatten().topk(len(scores))
    kept = flat >= LOWEST_SCORE
    order = order[kept]
    return flat[kept], order // scores.shape[1], order % scores.shape[1]


def _objects(scores: Tensor, classes: Tensor, masks: Tensor) -> list[Found]:
    found = []
    for score, number, logits in zip(scores.tolist(), classes.tolist(), masks, strict=True):
        mask = logits > 0
        if mask.any():
            sure = score * float(logits.sigmoid()[mask].mean())
            found.append(Found(OBJECTS[number], sure, _box(mask), mask))
    return sorted(found, key=lambda each: -each.score)


def _box(mask: Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def read_finder(folder: Path, device: str) -> ObjectFinder:
    """Return the detector of a folder.

    Raises:
        FaultError: It is damaged, or its classes are not those of COCO.
    """
    try:
        model, report = Mask2FormerForUniversalSegmentation.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        size = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8")).get("size")
    except Exception as error:  # each library has its own exceptions for an unreadable file
        raise damaged(folder, error) from error
    if missing := sorted(report["missing_keys"]):
        raise FaultError(f"The folder '{folder}' is damaged: its weights lack '{missing[0]}'.")
    if model.config.num_labels != len(OBJECTS):
        raise FaultError(
            f"The detector in '{folder}' tells {model.config.num_labels} classes apart, not the "
            f"{len(OBJECTS)} of COCO."
        )
    shortest = int(size.get("shortest_edge", SHORTEST)) if isinstance(size, dict) else SHORTEST
    return ObjectFinder(model, shortest, device)
