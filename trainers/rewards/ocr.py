"""OCR accuracy: is the text that a prompt puts in quotes written in the picture? A black box.

PP-OCRv5 in transformers: a detector finds lines of text, a recogniser reads each. Their image processors need
libraries that this project does without, so pictures are prepared and boxes read off here: components of the
detector's map in the place of contours, upright boxes in the place of rotated ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from transformers import PPOCRV5ServerDetForObjectDetection, PPOCRV5ServerRecForTextRecognition

from trainers.errors import FaultError
from trainers.rewards.clip import damaged
from trainers.rewards.contract import Reward
from trainers.rewards.readable import plain, quoted
from trainers.rewards.weights import TEXT_FINDER, TEXT_READER

PIXEL, BOX, UNCLIP, SMALLEST = 0.3, 0.6, 1.5, 3  # of the detector's published post-processing
STRIDE, LONGEST = 32, 960
FINDER_MEAN, FINDER_STD = (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)  # red, green, blue, as published
TOGETHER = 8  # pictures; the detector reads them at up to 960 pixels, where each takes much memory
LINE_HEIGHT, LINE_WIDTH, WIDEST_LINE = 48, 320, 3200

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are the first beyond


@dataclass(frozen=True)
class TextReader:
    """Finds lines of text in pictures and reads them.

    Attributes:
        finder: Pictures → maps of where text is.
        reader: Lines of text → characters.
        characters: What the reader's classes mean; the first is the blank between characters.
    """

    finder: torch.nn.Module
    reader: torch.nn.Module
    characters: tuple[str, ...]

    def read(self, images: Tensor) -> list[str]:
        """Return the text of each picture, its lines from top to bottom put together without spaces.

        Args:
            images: (B, 3, H, W) in [0, 1]; few are looked at at once.
        """
        return [text for part in images.split(TOGETHER) for text in self._read(part)]

    @torch.no_grad()
    def _read(self, images: Tensor) -> list[str]:
        images = images.detach().float().to(next(self.finder.parameters()).device)
        maps = self.finder(pixel_values=_for_finder(images)).last_hidden_state[:, 0]
        texts = []
        for image, where in zip(images, maps.cpu().numpy(), strict=True):
            boxes = text_boxes(where, *image.shape[-2:])
            texts.append(
                "".join(self._line(image[:, top:bottom, left:right]) for left, top, right, bottom in boxes)
            )
        return texts

    def _line(self, image: Tensor) -> str:
        return decode(self.reader(pixel_values=_for_reader(image)).last_hidden_state[0], self.characters)


def _for_finder(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    scale = min(1.0, LONGEST / max(height, width))
    size = [max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in (height, width)]
    resized = F.interpolate(images, size, mode="bilinear", antialias=True)
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (FINDER_MEAN, FINDER_STD))
    return ((resized - mean) / std)[:, [2, 1, 0]]  # trained on blue, green, red


def _for_reader(image: Tensor) -> Tensor:
    """Resize a line to the reader's height, keeping its proportions, and pad short ones."""
    height, width = image.shape[-2:]
    wide = min(WIDEST_LINE, max(1, math.ceil(LINE_HEIGHT * width / height)))
    resized = F.interpolate(image[None], (LINE_HEIGHT, wide), mode="bilinear", antialias=True)
    return F.pad(2 * resized - 1, (0, max(0, LINE_WIDTH - wide)))


def text_boxes(where: np.ndarray, height: int, width: int) -> list[Box]:
    """Return the boxes of lines of text, in reading order.

    Args:
        where: (h, w) probability of text.
        height: Of the picture.
        width: Of the picture.

    Source: Liao et al., Real-time Scene Text Detection with Differentiable Binarization, 2020: a line is a
        shrunk
    region of the map, grown by area × ratio / perimeter.
    """
    labels, _ = ndimage.label(where > PIXEL)
    boxes = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        tall, long = rows.stop - rows.start, columns.stop - columns.start
        inside = where[rows, columns][labels[rows, columns] == number]
        if min(tall, long) < SMALLEST or inside.mean() < BOX:
            continue
        grow = tall * long * UNCLIP / (2 * (tall + long))
        down, across = height / where.shape[0], width / where.shape[1]
        left, right = (columns.start - grow) * across, (columns.stop + grow) * across
        top, bottom = (rows.start - grow) * down, (rows.stop + grow) * down
        boxes.append(
            (max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom)))
        )
    return _reading_order(boxes)


def _reading_order(boxes: Sequence[Box]) -> list[Box]:
    """Sort by line, then from left to right; boxes are in one line when their middles are within half a
    height.
    """
    lines: list[list[Box]] = []
    for box in sorted(boxes, key=lambda b: b[1] + b[3]):
        middle, tall = (box[1] + box[3]) / 2, box[3] - box[1]
        last = lines[-1][0] if lines else None
        if last and abs((last[1] + last[3]) / 2 - middle) < tall / 2:
            lines[-1].append(box)
        else:
            lines.append([box])
    return [box for line in lines for box in sorted(line)]


def decode(scores: Tensor, characters: Sequence[str]) -> str:
    """Read the reader's output greedily: the likeliest class of each place, repetitions and blanks left out.

    Args:
        scores: (L, V).
        characters: V characters, the blank first.

    Source: Graves et al., Connectionist Temporal Classification, 2006.
    """
    best = scores.argmax(-1).tolist()
    kept = [now for now, before in zip(best, [0, *best], strict=False) if now not in (0, before)]
    return "".join(characters[number] for number in kept)


class OcrAccuracy(Reward):
    """r = 1 − min(d, |t|)/|t| with d the edit distance of the quoted text t and what is read; 1 if t is in
    it.

    Case and spaces do not count, and what is read beyond the text costs at most all of it.

    Args:
        reader: reads pictures.

    Source: Liu et al., Flow-GRPO, 2025, section 4, after Gong et al., Seedream 2.0.
    """

    def __init__(self, reader: TextReader):
        self.reader = reader

    def __call__(self, images, prompts, metadata=None):
        wanted = [quoted(prompt) for prompt in prompts]
        scores = [accuracy(text, read) for text, read in zip(wanted, self.reader.read(images), strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=images.device)


def accuracy(wanted: str, read: str) -> float:
    """Return 1 − min(d, |t|)/|t|, see ``OcrAccuracy``; ``wanted`` is plain already and not empty."""
    read = plain(read)
    if wanted in read:
        return 1.0
    return 1 - min(edit_distance(wanted, read), len(wanted)) / len(wanted)


def edit_distance(one: str, other: str) -> int:
    """Return the fewest insertions, deletions and replacements of characters between two texts
    (Levenshtein).
    """
    row = list(range(len(other) + 1))
    for i, mine in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, theirs in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (mine != theirs))
    return row[-1]


def read_reader(finder: Path, reader: Path, device: str) -> TextReader:
    """Return the two networks of two folders.

    Raises:
        FaultError: A folder is damaged.
    """
    found = _network(PPOCRV5ServerDetForObjectDetection, finder, device)
    read = _network(PPOCRV5ServerRecForTextRecognition, reader, device)
    try:
        settings = json.loads((reader / "preprocessor_config.json").read_text(encoding="utf-8"))
        characters = tuple(settings["character_list"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(reader, error) from error
    if len(characters) != read.config.head_out_channels:
        raise FaultError(
            f"The folder '{reader}' is damaged: it names {len(characters)} characters for "
            f"{read.config.head_out_channels} classes."
        )
    return TextReader(found, read, characters)


def _network(kind, folder: Path, device: str):
    try:
        model, report = kind.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # each library has its own exceptions for an unreadable file
        raise damaged(folder, error) from error
    if missing := sorted(report["missing_keys"]):
        raise FaultError(f"The folder '{folder}' is damaged: its weights lack '{missing[0]}'.")
    return model.to(device).eval().requires_grad_(False)


def load(device: str = "cpu") -> OcrAccuracy:
    """Return the reward."""
    return OcrAccuracy(read_reader(TEXT_FINDER.folder(), TEXT_READER.folder(), device))
