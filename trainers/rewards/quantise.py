"""The step from tensors to 8-bit pictures, as black-box rewards see them."""

import numpy as np
from torch import Tensor


def to_uint8(images: Tensor) -> np.ndarray:
    """Quantise pictures by round(255·x), clamped to [0, 255].

    Args:
        images: (B, 3, H, W), floating point, in [0, 1].

    Returns:
        (B, H, W, 3) uint8.
    """
    levels = (images.detach().float().clamp(0, 1) * 255).round()
    return levels.byte().permute(0, 2, 3, 1).cpu().contiguous().numpy()
