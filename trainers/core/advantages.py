"""From rewards to advantages, within groups of samples that are compared with each other.

A group shares a prompt, or a parent state when branches leave one. The last dimension is the group.
Sources: GRPO (arXiv 2402.03300) for the normalisation; the tilted form is the self-normalised estimator
of ∇ log E[exp(r/β)] (arXiv 2604.17415, section 4).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STD_EPSILON = 1e-4


def advantages(
    rewards: Tensor,
    kind: str = "group",
    clamp: float = 5.0,
    tilt: float = 1.0,
    epsilon: float = STD_EPSILON,
    unbiased: bool = False,
    std: Tensor | None = None,
    among: Tensor | None = None,
) -> Tensor:
    """Return advantages shaped like the rewards.

    ``group``: (r − mean)/(std + ε); ``mean``: r − mean; ``raw``: r;
    ``tilted``: exp(r/tilt)/mean exp(r/tilt) − 1, where subtracting 1 is a control variate of mean zero noise;
    ``bounded``: the ``group`` form divided by the clamp, so within [−1, 1] (DiffusionNFT's 2ρ − 1,
    arXiv 2509.16117).

    Args:
        rewards: (..., M) rewards of groups of M samples.
        kind: One of the names above.
        clamp: Largest absolute advantage.
        tilt: Temperature of the tilted form, in reward units.
        epsilon: ε, what is added to the standard deviation.
        unbiased: Whether the standard deviation divides by M − 1 instead of M.
        std: Standard deviation to divide by, broadcastable to the rewards; the group's own when None.
        among: (..., S) the rewards whose mean and standard deviation count; the group's own when None.

    Returns:
        (..., M) advantages in [−clamp, clamp]. A group without spread gives zeros, unless ``raw``.

    Raises:
        ValueError: The kind is unknown.
    """
    among = rewards if among is None else among
    # Equal rewards rarely have a mean that is exactly equal to them.
    silent = zero_spread(among).unsqueeze(-1)
    centered = torch.where(silent, 0.0, rewards - among.mean(-1, keepdim=True))
    if kind in ("group", "bounded"):
        own = standard_deviation(among, unbiased).unsqueeze(-1) if std is None else std
        result = centered / (own + epsilon)
    elif kind == "mean":
        result = centered
    elif kind == "raw":
        result = rewards
    elif kind == "tilted":
        mean = (among / tilt).logsumexp(-1, keepdim=True) - math.log(among.shape[-1])
        result = torch.where(silent, 0.0, torch.expm1(rewards / tilt - mean))
    else:
        raise ValueError(f"Unknown advantage '{kind}'.")
    result = result.clamp(-clamp, clamp)
    return result / clamp if kind == "bounded" else result


def standard_deviation(rewards: Tensor, unbiased: bool = False) -> Tensor:
    """Return (...,) the standard deviation over the last dimension; 0 for groups of one."""
    if rewards.shape[-1] < 2:
        return torch.zeros_like(rewards[..., 0])
    return rewards.std(-1, correction=int(unbiased))


def zero_spread(rewards: Tensor) -> Tensor:
    """Return (...,) whether all rewards of a group are equal, so that nothing can be learned from it."""
    return rewards.amax(-1) - rewards.amin(-1) <= 1e-7 * rewards.abs().amax(-1).clamp(min=1e-6)
