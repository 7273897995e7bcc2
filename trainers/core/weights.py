"""Temporal weights and guidance strengths of the loss, as scalars of one step.

A zeroth-order row is described through its log-ratio ℓ = −½w²‖Δo‖² + w⟨ε, Δo⟩ with slope w (k/σ for the
exact kernel). ``loss_scale`` multiplies the row's loss (it is W1/λ); ``ratio_scale`` is the factor under
which the clip acts, so that "fair" clips bite at the same mean shift at every step. Regression rows use
W1 (``regression_weight``) and γ (``guidance_strength``) directly. Sources: arXiv 2604.17415, tables 1 and 2,
and the papers named at each row of ``trainers.methods``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainers.core.transition import Coefficients

HUBER = "forward_huber"
_FORWARD_POWERS = {"forward_one": 0, "forward_noise": 1, "forward_noise_squared": 2, HUBER: 0}


@dataclass(frozen=True)
class StepWeights:
    """The scalars of one step.

    Attributes:
        slope: w, the factor of ⟨ε, Δo⟩ in the log-ratio.
        loss_scale: Multiplier of the row's loss.
        ratio_scale: Multiplier of the log-ratio inside the clip; the loss is divided by it again.
        centred: Whether the drift −½w²‖Δo‖² of the log-ratio is taken out before it is scaled.
    """

    slope: float
    loss_scale: float = 1.0
    ratio_scale: float = 1.0
    centred: bool = False


@dataclass(frozen=True)
class ScheduleMeans:
    """Constants of a schedule that stand in the place of a step's own factor.

    Attributes:
        slope: w̄, the mean of |k/σ| of the usual kernel over all steps that inject noise (0.5169 for Stable
            Diffusion 1.5, 50 steps of DDPM).
        rate: ζ, by which ζΔ has the mean weight |k/σ| over the trained steps.
        std: The mean of σ over the trained steps (1/2.25 for Stable Diffusion 3.5, 10 steps, a = 0.7).
    """

    slope: float = 1.0
    rate: float = 1.0
    std: float = 1.0


def schedule_means(
    kernels: Sequence[Coefficients],
    intervals: Sequence[float],
    usual: Sequence[Coefficients] | None = None,
) -> ScheduleMeans:
    """Return a schedule's constants; all 1 when no step injects noise.

    ζ and the mean of σ leave out the last step, which rows that need them never train: on a shifted flow it
    covers next to no time and would dominate the mean of |k/σ|.

    Args:
        kernels: The stochastic kernel of each of the T steps.
        intervals: Δ of each step.
        usual: The family's usual kernel of each step, of which w̄ is taken whatever kernel samples (PCPO's
            program takes that of DDPM); ``kernels`` when None.
    """
    noisy = [c for c in usual or kernels if c.std > 0]
    trained = [pair for pair in zip(kernels[:-1], intervals[:-1], strict=True) if pair[0].std > 0]
    if not trained:
        return ScheduleMeans()
    return ScheduleMeans(
        sum(abs(c.slope) for c in noisy) / len(noisy),
        sum(abs(c.slope) for c, _ in trained) / sum(delta for _, delta in trained),
        sum(c.std for c, _ in trained) / len(trained),
    )


def is_forward(weight: str) -> bool:
    """Return whether a weight belongs to forward-process rows, which have no transition kernel."""
    return weight in _FORWARD_POWERS


def forward_slope(weight: str, noise: float) -> float:
    """Return w = √(2 t^p) of a forward-process row, with p = 0, 1 or 2 by the weight's name.

    With ε := w·(u − o_old) the log-ratio −½w²‖Δo‖² + w⟨ε, Δo⟩ is −t^p(‖o − u‖² − ‖o_old − u‖²), the
    difference of two weighted denoising losses. Source: AWM, arXiv 2509.25050.

    Args:
        weight: ``forward_one``, ``forward_noise``, ``forward_noise_squared``, or ``forward_huber``, whose
            log-ratio is then bent by ``core.loss.powered_log_ratio``.
        noise: The noise level of the state.
    """
    return math.sqrt(2.0 * noise ** _FORWARD_POWERS[weight])


def zeroth_order_weights(
    weight: str,
    trust_region: str,
    coefficients: Coefficients,
    delta: float,
    means: ScheduleMeans,
    noise: float = 1.0,
) -> StepWeights:
    """Return the scalars of a zeroth-order step.

    Args:
        weight: ``natural`` (λ); ``natural_scaled`` (λ·τ/√Δ with τ = σ/√Δ); ``noise_aware`` (λ·σ/mean σ,
            TempFlow's weight); ``schedule_mean`` (the slope is replaced by its mean, PCPO's constant
            weight); ``interval`` (the slope is ζΔ with the same mean, PCPO's flow weight); ``forward_…`` for
            rows of the forward process.
        trust_region: ``fair_clip`` applies the clip to σ²ℓ, ``normalised_clip`` to σ(ℓ + ½w²‖Δo‖²)
            (GRPO-Guard); anything else to ℓ.
        coefficients: The stochastic kernel of the step; σ > 0 unless the weight is a forward one.
        delta: Δ, the fall of the noise level over the step.
        means: Means over the schedule.
        noise: The noise level of the state (forward weights).

    Raises:
        ValueError: The weight is unknown.
    """
    if is_forward(weight):
        return StepWeights(forward_slope(weight, noise))
    scale = {"fair_clip": coefficients.std**2, "normalised_clip": coefficients.std}.get(trust_region, 1.0)
    centred = trust_region == "normalised_clip"
    sign = -1.0 if coefficients.slope < 0 else 1.0
    if weight == "natural":
        return StepWeights(coefficients.slope, 1.0, scale, centred)
    if weight == "natural_scaled":
        return StepWeights(coefficients.slope, coefficients.std / delta, scale, centred)
    if weight == "noise_aware":
        return StepWeights(coefficients.slope, coefficients.std / means.std, scale, centred)
    if weight == "schedule_mean":
        return StepWeights(sign * means.slope, 1.0, scale, centred)
    if weight == "interval":
        return StepWeights(sign * means.rate * delta, 1.0, scale, centred)
    raise ValueError(f"Unknown zeroth-order weight '{weight}'.")


def regression_weight(weight: str, coefficients: Coefficients, clean_slope: float, scale: float) -> float:
    """Return W1 of a regression step.

    Args:
        weight: ``one``; ``clean_error`` ((∂x̂0/∂o)², which turns an output error into an x0 error);
            ``contrast`` (the same times the scale, DiffusionNFT's); ``natural`` (λ);
            ``inverse_variance`` (k²/σ²); ``score`` (k²/σ⁴, the error of the transition's score);
            ``kl_natural`` (βλ).
        coefficients: The step's kernel; σ > 0 for the weights that read it.
        clean_slope: |∂x̂0/∂o|.
        scale: β, or DiffusionNFT's step between its policies.

    Raises:
        ValueError: The weight is unknown.
    """
    if weight == "one":
        return 1.0
    if weight == "clean_error":
        return clean_slope**2
    if weight == "contrast":
        return scale * clean_slope**2
    if weight == "natural":
        return coefficients.natural_weight
    if weight == "inverse_variance":
        return coefficients.slope**2
    if weight == "score":
        return (coefficients.slope / coefficients.std) ** 2
    if weight == "kl_natural":
        return scale * coefficients.natural_weight
    raise ValueError(f"Unknown regression weight '{weight}'.")


def guidance_strength(
    strength: str,
    signal: float,
    next_signal: float = 1.0,
    scale: float = 1.0,
    discount: float = 1.0,
    steps_left: int = 0,
) -> float:
    """Return γ of a regression step.

    Args:
        strength: ``one``; ``clean_share`` (1 − t for flows, √ᾱ for diffusion); ``clean_share_squared``;
            ``next_clean_share_squared`` (ᾱ' for diffusion); ``inverse_kl`` (1/β); ``discounted``
            (discount^steps_left / β).
        signal: Coefficient of x0 in the state.
        next_signal: The same after the step.
        scale: β, or DiffusionNFT's step between its policies.
        discount: The discount of one sampling step.
        steps_left: Sampling steps after this one.

    Raises:
        ValueError: The strength is unknown.
    """
    if strength == "one":
        return 1.0
    if strength == "clean_share":
        return signal
    if strength == "clean_share_squared":
        return signal**2
    if strength == "next_clean_share_squared":
        return next_signal**2
    if strength == "inverse_kl":
        return 1.0 / scale
    if strength == "discounted":
        return discount**steps_left / scale
    raise ValueError(f"Unknown guidance strength '{strength}'.")
