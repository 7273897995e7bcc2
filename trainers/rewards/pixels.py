"""What rewards that read nothing but pixels share: luma, standard deviation, and the reward around a formula.

The formulas themselves have a file each (`brightness`, `contrast`, `sharpness`, `colorfulness`). They keep
the dtype of their input, so that tests can check gradients in float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trainers.rewards.contract import Reward

LUMA_BT709 = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709-6, item 3.2


class PixelReward(Reward):
    """A differentiable reward that ignores the prompt.

    Args:
        formula: maps pictures (B, 3, H, W) in [0, 1] to values (B,).
    """

    def __init__(self, formula: Callable[[Tensor], Tensor]):
        self.formula = formula

    def __call__(self, images, prompts, metadata=None):
        return self.formula(images.float())


def luma(images: Tensor) -> Tensor:
    """Return Y' = 0.2126 R' + 0.7152 G' + 0.0722 B' of gamma-encoded pictures.

    Args:
        images: (B, 3, H, W) in [0, 1].

    Returns:
        (B, H, W) in [0, 1].

    Source: ITU-R BT.709-6, item 3.2.
    """
    return torch.einsum("bchw,c->bhw", images, images.new_tensor(LUMA_BT709))


def deviation(values: Tensor) -> Tensor:
    """Return the population standard deviation over all but the first axis.

    Args:
        values: (B, ...).

    Returns:
        (B,). A norm, not a square root, so that its gradient at 0 is 0 instead of infinite.
    """
    flat = values.flatten(1)
    return torch.linalg.vector_norm(flat - flat.mean(1, keepdim=True), dim=1) / flat.shape[1] ** 0.5
