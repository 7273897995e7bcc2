"""From pictures to what a vision network reads: resized, cropped, normalised, and differentiable.

The processors of CLIP and BLIP resize 8-bit pictures with Pillow, which rounds to 8 bits after each of its
two passes. Rounding is part of what the networks were trained on, so it is done here too, with Pillow's own
fixed-point weights; the gradient passes it unchanged (straight through), as if the resize were the linear
map that it approximates. Leaves out what pictures of a diffusion model never need: other modes than RGB,
other filters.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BITS = 22  # of the fraction of Pillow's resampling weights
_SUPPORT = 2.0


@dataclass(frozen=True)
class Preprocess:
    """How pictures of any size become pixel values.

    Attributes:
        size: Height and width of the result.
        crop: Whether the shorter side is resized to ``size`` and the middle cut out; else both sides are
            resized.
        eight_bits: Whether pictures are resized as 8-bit ones, like Pillow does; else as they are.
        mean: Subtracted from each colour.
        std: Each colour is divided by it.
    """

    size: int
    crop: bool = True
    eight_bits: bool = True
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __call__(self, images: Tensor) -> Tensor:
        """Return pixel values.

        Args:
            images: (B, 3, H, W) in [0, 1].

        Returns:
            (B, 3, size, size) of the pictures' dtype, with gradient if they have one.
        """
        height, width = self._target(*images.shape[-2:])
        if self.eight_bits:
            resized = resize_eight_bits(images, height, width)
        elif (height, width) == tuple(images.shape[-2:]):
            resized = images
        else:
            resized = functional.interpolate(images, (height, width), mode="bicubic", antialias=True)
        values = self._middle(resized).to(images.dtype)
        return (values - values.new_tensor(self.mean).view(3, 1, 1)) / values.new_tensor(self.std).view(
            3, 1, 1
        )

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if not self.crop:
            return self.size, self.size
        short = min(height, width)
        return int(self.size * height / short), int(self.size * width / short)

    def _middle(self, images: Tensor) -> Tensor:
        top, left = ((side - self.size) // 2 for side in images.shape[-2:])
        return images[..., top : top + self.size, left : left + self.size]


def resize_eight_bits(images: Tensor, height: int, width: int) -> Tensor:
    """Resize like Pillow resizes 8-bit pictures with its bicubic filter, rounding included.

    Args:
        images: (B, 3, H, W) in [0, 1]; rounded to 8 bits first.
        height: Of the result.
        width: Of the result.

    Returns:
        (B, 3, height, width) float64 in [0, 1], whole multiples of 1/255.

    Source: Pillow, ``src/libImaging/Resample.c``: the horizontal pass first, then the vertical one.
    """
    levels = _round(images.double() * 255)
    if width != levels.shape[3]:
        levels = _round(levels @ _weights(levels.shape[3], width, levels.device).T)
    if height != levels.shape[2]:
        levels = _round(_weights(levels.shape[2], height, levels.device) @ levels)
    return levels / 255


def _round(levels: Tensor) -> Tensor:
    """Round half up to 0 … 255; the gradient passes where nothing is cut off."""
    levels = levels.clamp(0, 255)
    return levels + ((levels + 0.5).floor() - levels).detach()


@lru_cache(maxsize=64)
def _weights(source: int, target: int, device: torch.device) -> Tensor:
    """Return the (target, source) float64 matrix of one pass, each weight a whole multiple of 2**-22."""
    scale = source / target
    widening = max(scale, 1.0)
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    first = (centres - _SUPPORT * widening + 0.5).long().clamp(min=0)
    last = (centres + _SUPPORT * widening + 0.5).long().clamp(max=source)
    places = torch.arange(source)
    inside = (places >= first[:, None]) & (places < last[:, None])
    weights = _bicubic((places - centres[:, None] + 0.5) / widening) * inside
    weights = weights / weights.sum(1, keepdim=True)
    fixed = (weights.abs() * 2**_BITS + 0.5).floor() * weights.sign()
    return (fixed / 2**_BITS).to(device)


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = −1/2."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
