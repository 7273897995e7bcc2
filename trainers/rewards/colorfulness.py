"""Colourfulness after Hasler and Süsstrunk: spread and mean of two opponent colours. Differentiable."""

import torch
from torch import Tensor

from trainers.rewards.pixels import PixelReward

SCALE = 2.55  # the source counts levels from 0 to 255; this reward counts hundreds of its units


def colorfulness(images: Tensor) -> Tensor:
    """Return the colourfulness M̂³ of the source, divided by 100.

        rg = R − G,   yb = (R + G)/2 − B,   M = √(σ²_rg + σ²_yb) + 0.3 · √(μ²_rg + μ²_yb)

    The source's viewers called 0.15 slightly, 0.33 moderately, 0.59 quite and 1.09 extremely colourful.

    Args:
        images: (B, 3, H, W) in [0, 1].

    Returns:
        (B,) in [0, 3]: by |(rg, yb)|² ≤ 5/4 and Cauchy–Schwarz, at most 2.55 · √(1.25 · 1.09) ≈ 2.98.

    Source: Hasler & Süsstrunk, Measuring colourfulness in natural images, SPIE 5007, 2003, section 7.
    """
    red, green, blue = images.flatten(2).unbind(1)
    opponents = torch.stack((red - green, (red + green) / 2 - blue), dim=1)  # (B, 2, H·W)
    mean = opponents.mean(2)
    # Norms instead of square roots: their gradient on grey is 0 instead of infinite.
    spread = torch.linalg.vector_norm(opponents - mean[:, :, None], dim=(1, 2)) / opponents.shape[2] ** 0.5
    return SCALE * (spread + 0.3 * torch.linalg.vector_norm(mean, dim=1))


def load(device: str = "cpu") -> PixelReward:
    """Return the reward; `device` is that of the pictures."""
    return PixelReward(colorfulness)
