"""Temporal weights and guidance strengths of the loss, as scalars of one step.

A zeroth-order row is described through its log-ratio ℓ = −½w²‖Δo‖² + w⟨ε, Δo⟩ with slope w (k/σ for the
exact kernel). ``loss_scale`` multiplies the row's loss (it is W1/λ); ``ratio_scale`` is the factor under
which the clip acts, so that "fair" clips bite at the same mean shift at every step. First-order rows use
W1 (``regression``) and γ (``strength``) directly. Source: arXiv 2604.17415, tables 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainers.core.transition import Coefficients


@dataclass(frozen=True)
class StepWeights:
    """The scalars of one step.

    Attributes:
        slope: w, the factor of ⟨ε, Δo⟩ in the log-ratio.
        loss_scale: Multiplier of the row's loss.
        ratio_scale: Multiplier of the log-ratio inside the clip; the loss is divided by it again.
    """

    slope: float
    loss_scale: float = 1.0
    ratio_scale: float = 1.0


def zeroth_order_weights(
    weight: str, trust_region: str, coefficients: Coefficients, delta: float, mean_slope: float
) -> StepWeights:
    """Return the scalars of a zeroth-order step.

    Args:
        weight: ``natural`` (λ), ``natural_scaled`` (λ·τ/√Δ with τ = σ/√Δ) or ``schedule_mean`` (the slope
            is replaced by its mean over the schedule, PCPO's constant weight).
        trust_region: ``fair_clip`` applies the clip to σ²ℓ; anything else to ℓ.
        coefficients: The stochastic kernel of the step, σ > 0.
        delta: Δ, the fall of the noise level over the step.
        mean_slope: Mean of |k/σ| over the schedule.

    Raises:
        ValueError: The weight is unknown.
    """
    ratio_scale = coefficients.std**2 if trust_region == "fair_clip" else 1.0
    if weight == "natural":
        return StepWeights(coefficients.slope, 1.0, ratio_scale)
    if weight == "natural_scaled":
        return StepWeights(coefficients.slope, coefficients.std / delta, ratio_scale)
    if weight == "schedule_mean":
        sign = -1.0 if coefficients.slope < 0 else 1.0
        return StepWeights(sign * mean_slope, 1.0, ratio_scale)
    raise ValueError(f"Unknown zeroth-order weight '{weight}'.")


def regression_weight(weight: str, coefficients: Coefficients) -> float:
    """Return W1 of a first-order step: ``one`` or ``inverse_variance`` (k²/σ²).

    Raises:
        ValueError: The weight is unknown.
    """
    if weight == "one":
        return 1.0
    if weight == "inverse_variance":
        return coefficients.slope**2
    raise ValueError(f"Unknown first-order weight '{weight}'.")


def guidance_strength(strength: str, signal: float) -> float:
    """Return γ of a first-order step: ``one`` or ``clean_share`` (1 − t for flows).

    Raises:
        ValueError: The strength is unknown.
    """
    if strength == "one":
        return 1.0
    if strength == "clean_share":
        return signal
    raise ValueError(f"Unknown guidance strength '{strength}'.")
