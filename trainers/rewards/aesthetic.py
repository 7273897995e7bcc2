"""LAION's aesthetic predictor: how much people like the look of a picture, 1 to 10, whatever the caption
says.

A small network on the embedding of CLIP ViT-L/14, here with our own layers of the published shapes. As
published it has no activations between its layers. Differentiable through the picture.
"""

import torch
from torch import nn

from trainers.rewards.clip import ClipTowers, damaged
from trainers.rewards.clip_score import large_towers
from trainers.rewards.contract import Reward
from trainers.rewards.hps import read_checkpoint
from trainers.rewards.weights import AESTHETIC

WIDTHS = (1024, 128, 64, 16, 1)


def linear_head(width: int) -> nn.Sequential:
    """Return the head that LAION's predictor and ImageReward have in common, on ``width`` features.

    Dropout does nothing here but keeps the published numbers of the layers: 0, 2, 4, 6, 7.
    """
    layers: list[nn.Module] = []
    for number, out in enumerate(WIDTHS):
        layers.append(nn.Linear(width, out))
        if number < 3:
            layers.append(nn.Dropout(0.0))
        width = out
    return nn.Sequential(*layers)


class Aesthetic(Reward):
    """The prediction.

    Args:
        towers: the CLIP whose unit-length picture embedding is read.
        head: (B, D) → (B, 1).

    Source: Schuhmann, improved-aesthetic-predictor, 2022, ``sac+logos+ava1-l14-linearMSE``.
    """

    def __init__(self, towers: ClipTowers, head: nn.Module):
        self.towers = towers
        self.head = head.to(towers.device).eval().requires_grad_(False)

    def __call__(self, images, prompts, metadata=None):
        return self.head(self.towers.pictures(images)).squeeze(1).float().to(images.device)


def load(device: str = "cpu") -> Aesthetic:
    """Return the reward."""
    towers = large_towers(device)
    path = AESTHETIC.folder() / AESTHETIC.files[0]
    head = linear_head(towers.model.config.projection_dim)
    state = {name.removeprefix("layers."): value for name, value in read_checkpoint(path).items()}
    try:
        head.load_state_dict(state)
    except RuntimeError as error:
        raise damaged(path, error) from error
    return Aesthetic(towers, head.to(torch.float32))
