"""Brightness: the mean luma of a picture. Differentiable; perception enters by the luma weights only."""

from torch import Tensor

from trainers.rewards.pixels import PixelReward, luma


def brightness(images: Tensor) -> Tensor:
    """Return the mean luma, mean(Y').

    Args:
        images: (B, 3, H, W) in [0, 1].

    Returns:
        (B,) in [0, 1]; 0 is black, 1 is white.

    Source: luma of ITU-R BT.709-6, item 3.2.
    """
    return luma(images).mean((1, 2))


def load(device: str = "cpu") -> PixelReward:
    """Return the reward; `device` is that of the pictures."""
    return PixelReward(brightness)
