"""The one loss, in output space, and the two clipped forms in which zeroth-order methods use it.

    L = W1·‖o_θ − (o_anchor + γG)‖² + W2·‖o_θ − o_old‖²           (per-element means)

With W1 = λ, G = (σ/k)Âε and anchor = old, the gradient of the first term at θ = θ_old is that of −Â·ℓ,
where ℓ = −½w²‖Δo‖² + w⟨ε, Δo⟩ is the kernel's exact log-ratio (w = k/σ, Δo = o_θ − o_old). Clipping ℓ
is what makes a trust region of it. Source: arXiv 2604.17415, equations 6–12.
"""

from __future__ import annotations

import torch
from torch import Tensor

ERROR_FLOOR = 1e-10


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


def powered_log_ratio(ratio: Tensor, old_error: Tensor, noise: float, power: float) -> Tensor:
    """Return ℓ = −(t/p)·[(L + ε)^p − (L_old + ε)^p], the difference of two generalized Huber losses.

    L = mean‖o − u‖² is the denoising error of the present policy and L_old that of the old one. p = ½ is
    twice the Huber weighting. Source: AWM's published program (arXiv 2509.25050), where p = ¼ and ε = 1e-10.

    Args:
        ratio: (B, K) L_old − L, the log-ratio of ``log_ratio`` with w = √2.
        old_error: (B, K) L_old.
        noise: t, the noise level of the states.
        power: p in (0, 1].
    """
    before = old_error + ERROR_FLOOR
    now = (old_error - ratio).clamp(min=0.0) + ERROR_FLOOR
    return -noise / power * (now**power - before**power)


def contrast(output: Tensor, old: Tensor, target: Tensor, share: Tensor, step: float, slope: float) -> Tensor:
    """Return DiffusionNFT's loss (B,): ρ·d(o₊)/b + (1 − ρ)·d(o₋)/b with o± = o_old ± b(o_θ − o_old).

    d(o) is the mean squared x0 error of o over its own mean absolute x0 error, the latter without gradient.
    Source: arXiv 2509.16117, equation 9, and its published program, whose common factor of 5 is left out.

    Args:
        output: (B, C, H, W) o_θ, with gradient.
        old: (B, C, H, W) output of the old policy.
        target: (B, C, H, W) u, the clean direction.
        share: (B,) ρ in [0, 1], how good the picture is.
        step: b, the distance of the implicit policies from the old one.
        slope: |∂x̂0/∂o|.
    """
    losses = []
    for sign in (1.0, -1.0):
        error = slope * (old + sign * step * (output - old) - target)
        size = error.detach().abs().flatten(1).mean(1).clamp(min=1e-5)
        losses.append((error**2).flatten(1).mean(1) / size)
    better, worse = losses
    return (share * better + (1.0 - share) * worse) / step


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


def clipped(ratio: Tensor, advantages: Tensor, upper: float, lower: float | None = None) -> Tensor:
    """Return (B, K) whether the trust region cuts off a branch's pull.

    Args:
        ratio: (B, K) log-ratios ℓ (scaled as the trust region asks).
        advantages: (B, K) Â.
        upper: ℓ beyond which a branch with Â > 0 stops pulling: c, or log(1 + c) for the exp-ratio.
        lower: ℓ below which a branch with Â < 0 stops pulling: −c (None), or log(1 − c).
    """
    lower = -upper if lower is None else lower
    return ((advantages > 0) & (ratio > upper)) | ((advantages < 0) & (ratio < lower))
