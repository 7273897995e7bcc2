"""A run's pictures on disk: one PNG each, below ``samples/before`` and ``samples/after``."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainers.image_files import UnreadableImage, load_image
from trainers.run_folder import RunFolder, picture_name, write_fault


def save_pictures(folder: RunFolder, side: str, pictures: Tensor, first: int = 0) -> list[str]:
    """Write some of one side's pictures as PNG files and return their paths relative to the run.

    Args:
        folder: The run.
        side: ``before`` or ``after``.
        pictures: (N, 3, H, W) uint8.
        first: Number of the first one.

    Raises:
        FaultError: The disk is full or the folder cannot be written.
    """
    names = [picture_name(side, first + i) for i in range(len(pictures))]
    target = folder.samples / side
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, picture in zip(names, pictures, strict=True):
            part = target / ".part.png"
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(part)
            os.replace(part, folder.path / name)
    except OSError as error:
        raise write_fault(target, error) from error
    return names


def read_pictures(folder: RunFolder, names: Sequence[str]) -> Tensor | None:
    """Read pictures back as (N, 3, H, W) uint8; None when one is missing, damaged or of another size."""
    parts = []
    for name in names:
        try:
            image = load_image(folder.path / name)
        except UnreadableImage:
            return None
        parts.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    same = parts and all(part.shape == parts[0].shape for part in parts)
    return torch.stack(parts) if same else None
