"""Does the picture show what the caption says? The checker of the embedded world, as a black box.

`shapes` gives partial credit, `shapes_exact` only yes or no. Both read captions of the grammar of
`trainers.shapes`; other captions are refused before a run starts (`readable`).
"""

import torch

from trainers.rewards.contract import Reward
from trainers.rewards.quantise import to_uint8
from trainers.shapes.checker import score_batch


class ShapesReward(Reward):
    """Score of the checker.

    Args:
        exact: 1 if everything the caption asks for is right, else 0; otherwise the fraction that is right.
    """

    def __init__(self, exact: bool):
        self.exact = exact

    def __call__(self, images, prompts, metadata=None):
        fractions, exacts = score_batch(to_uint8(images), list(prompts))
        scores = exacts if self.exact else fractions
        return torch.as_tensor(scores, device=images.device).to(torch.float32)


def load_partial(device: str = "cpu") -> ShapesReward:
    """Return the reward with partial credit."""
    return ShapesReward(exact=False)


def load_exact(device: str = "cpu") -> ShapesReward:
    """Return the yes-or-no reward."""
    return ShapesReward(exact=True)
