"""The one loss, in output space, and the two clipped forms in which zeroth-order methods use it.

    L = W1·‖o_θ − (o_anchor + γG)‖² + W2·‖o_θ − o_old‖²           (per-element means)

With W1 = λ, G = (σ/k)Âε and anchor = old, the gradient of the first term at θ = θ_old is that of −Â·ℓ,
where ℓ = −½w²‖Δo‖² + w⟨ε, Δo⟩ is the kernel's exact log-ratio (w = k/σ, Δo = o_θ − o_old). Clipping ℓ
is what makes a trust region of it. Source: arXiv 2604.17415, equations 6–12.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squared_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return (B,) mean over elements of (first − second)²; inputs (B, C, H, W)."""
    return ((first - second) ** 2).flatten(1).mean(1)


def matching(output: Tensor, anchor: Tensor, guidance: Tensor) -> Tensor:
    """Return (B,) ‖o_θ − (o_anchor + γG)‖².

    Args:
        output: (B, C, H, W) o_θ, with gradient.
        anchor: (B, C, H, W) output of the anchor policy, without gradient.
        guidance: (B, C, H, W) γG in output space, without gradient.
    """
    return squared_distance(output, (anchor + guidance).detach())


def log_ratio(change: Tensor, noise: Tensor, slope: float) -> Tensor:
    """Return ℓ of K branches that left one state, −½w²‖Δo‖² + w⟨ε, Δo⟩.

    Args:
        change: (B, C, H, W) Δo = o_θ − o_old.
        noise: (B, K, C, H, W) noise ε of each branch.
        slope: w.

    Returns:
        (B, K) per-element mean log-ratios.
    """
    inner = (change.unsqueeze(1) * noise).flatten(2).mean(2)
    squared = (change**2).flatten(1).mean(1)
    return slope * inner - 0.5 * slope**2 * squared.unsqueeze(1)


def clipped_matching(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return max(0, c|Â| − Âℓ): the matching loss that stops pulling at ℓ = ±c.

    Args:
        ratio: (B, K) log-ratios ℓ (scaled as the trust region asks).
        advantages: (B, K) Â.
        clip: c, the trust region's half width.
    """
    return torch.relu(clip * advantages.abs() - advantages * ratio)


def clipped_ratio(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return PPO's −min(ρÂ, clip(ρ, 1 ± c)Â) with ρ = exp(ℓ); shapes as in ``clipped_matching``."""
    importance = ratio.exp()
    bounded = importance.clamp(1.0 - clip, 1.0 + clip)
    return -torch.minimum(importance * advantages, bounded * advantages)


def clipped_share(ratio: Tensor, advantages: Tensor, upper: float, lower: float | None = None) -> Tensor:
    """Return the scalar share of branches whose pull is cut off by the trust region.

    Args:
        ratio: (B, K) log-ratios ℓ (scaled as the trust region asks).
        advantages: (B, K) Â; branches with Â = 0 do not count.
        upper: ℓ beyond which a branch with Â > 0 stops pulling: c, or log(1 + c) for the exp-ratio.
        lower: ℓ below which a branch with Â < 0 stops pulling: −c (None), or log(1 − c).
    """
    lower = -upper if lower is None else lower
    pulling = advantages != 0
    cut = ((advantages > 0) & (ratio > upper)) | ((advantages < 0) & (ratio < lower))
    return cut.float().sum() / pulling.float().sum().clamp(min=1.0)
