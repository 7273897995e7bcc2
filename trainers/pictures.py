"""A run's pictures on disk: one PNG each, below ``samples/before`` and ``samples/after``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainers.errors import FaultError
from trainers.run_folder import RunFolder, write_fault


def save_pictures(folder: RunFolder, side: str, pictures: Tensor) -> list[str]:
    """Write one side's pictures as PNG files and return their paths relative to the run.

    Raises:
        FaultError: The disk is full or the folder cannot be written.
    """
    names = []
    target = folder.samples / side
    try:
        target.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures):
            path = target / f"{i:05d}.png"
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
            names.append(str(path.relative_to(folder.path)))
    except OSError as error:
        raise write_fault(target, error) from error
    return names


def read_pictures(folder: RunFolder, names: Sequence[str]) -> Tensor:
    """Read pictures back as (N, 3, H, W) uint8.

    Raises:
        FaultError: A picture is missing or damaged.
    """
    parts = []
    for name in names:
        try:
            with Image.open(folder.path / name) as image:
                parts.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))
        except OSError as error:
            raise FaultError(f"The picture {name} of this run is missing or damaged: {error}.") from error
    return torch.stack(parts)
