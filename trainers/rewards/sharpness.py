"""Sharpness: how strongly luma curves from pixel to pixel. Differentiable; noise counts as edges do."""

import torch
from torch import Tensor

from trainers.rewards.pixels import PixelReward, deviation, luma

LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def sharpness(images: Tensor) -> Tensor:
    """Return a quarter of the standard deviation of the luma's Laplacian, std(ΔY') / 4.

    The source takes the variance; the root has the unit of luma, and the quarter makes a one-pixel
    checkerboard 1. Only pixels with four neighbours count, so borders add nothing.

    Args:
        images: (B, 3, H, W) in [0, 1], H and W at least 3.

    Returns:
        (B,) in [0, 1].

    Source: Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000, LAPV.
    """
    kernel = images.new_tensor(LAPLACIAN)[None, None]
    return deviation(torch.nn.functional.conv2d(luma(images)[:, None], kernel)) / 4


def load(device: str = "cpu") -> PixelReward:
    """Return the reward; `device` is that of the pictures."""
    return PixelReward(sharpness)
