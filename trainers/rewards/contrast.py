"""Contrast: how far luma spreads around its mean. Differentiable, also on a flat picture."""

from torch import Tensor

from trainers.rewards.pixels import PixelReward, deviation, luma


def contrast(images: Tensor) -> Tensor:
    """Return twice the root-mean-square contrast, 2 · std(Y').

    The factor 2 makes the largest value 1: half the pixels black and half white.

    Args:
        images: (B, 3, H, W) in [0, 1].

    Returns:
        (B,) in [0, 1].

    Source: Peli, Contrast in complex images, JOSA A 7(10), 1990, RMS contrast.
    """
    return 2 * deviation(luma(images))


def load(device: str = "cpu") -> PixelReward:
    """Return the reward; `device` is that of the pictures."""
    return PixelReward(contrast)
