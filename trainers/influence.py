"""h(t): how strongly each sampling step pulls on the network, as a share of the schedule.

The pull of a row is the size of its loss's gradient at the network's output when the policy is the old one:
for clipped rows loss_scale·|w|·|Â·ε|, for regression rows 2·W1·γ·|G|. |Â·ε| and |∇r| are taken to be the
same at every step, so the figure shows what the method's weights do and not what the reward does; the
direction u − o_old of forward-process rows has unit size. Source: arXiv 2604.17415, section 4.
"""

from __future__ import annotations

from trainers.config import RunConfig
from trainers.core.parameterization import clean_slope
from trainers.core.schedule import Schedule
from trainers.core.transition import Coefficients
from trainers.core.weights import (
    ScheduleMeans,
    guidance_strength,
    is_forward,
    regression_weight,
    zeroth_order_weights,
)
from trainers.method import Method
from trainers.steps import kernels_of, means_of, stochastic_steps, stratified_steps


def influence(method: Method, config: RunConfig, schedule: Schedule) -> list[float]:
    """Return h of each of the T steps, summing to 1; 0 where a row does not train.

    Args:
        method: A row of the table.
        config: Noise level, kernel, branches, β and discount.
        schedule: The sampling steps.
    """
    kernels, means = kernels_of(schedule, config), means_of(schedule, config)
    pulls = [_pull(method, config, schedule, step, kernels[step], means) for step in range(schedule.steps)]
    total = sum(pulls)
    return [pull / total if total > 0 else 0.0 for pull in pulls]


def trained_steps(method: Method, config: RunConfig, schedule: Schedule) -> list[int]:
    """Return the steps a row can train on with these settings."""
    if method.branching == "per_step":
        return [step for step, count in enumerate(config.branches) if count]
    if method.branching in ("trajectory", "tree"):
        return list(range(stochastic_steps(method, config, schedule)))
    if is_forward(method.weight) and config.forward_levels == "stratified":
        return list(range(*stratified_steps(schedule.steps)))
    return list(range(schedule.steps))


def _pull(
    method: Method,
    config: RunConfig,
    schedule: Schedule,
    step: int,
    coefficients: Coefficients,
    means: ScheduleMeans,
) -> float:
    if step not in trained_steps(method, config, schedule):
        return 0.0
    if method.objective == "regression":
        return _regression_pull(method, config, schedule, step, coefficients)
    interval, noise = float(schedule.intervals()[step]), float(schedule.noise[step])
    weights = zeroth_order_weights(method.weight, method.trust_region, coefficients, interval, means, noise)
    size = abs(weights.slope) if is_forward(method.weight) else 1.0
    return weights.loss_scale * abs(weights.slope) * size


def _regression_pull(
    method: Method, config: RunConfig, schedule: Schedule, step: int, coefficients: Coefficients
) -> float:
    scale = config.contrast_step if method.normalised else max(config.kl_weight, 1e-12)
    weight = regression_weight(method.weight, coefficients, clean_slope(schedule, step), scale)
    strength = guidance_strength(
        method.strength,
        float(schedule.signal[step]),
        float(schedule.signal[step + 1]),
        scale,
        config.discount,
        schedule.steps - 1 - step,
    )
    return 2.0 * weight * strength * _guidance_size(method, schedule, step, coefficients)


def _guidance_size(method: Method, schedule: Schedule, step: int, coefficients: Coefficients) -> float:
    """Return |G| for a unit reward gradient, a unit Âε or a unit direction."""
    if method.order == "first":
        if method.form == "clean":
            return 1.0
        return abs(coefficients.std**2 / coefficients.output)
    if method.branching == "none":
        return 1.0 / clean_slope(schedule, step) if method.normalised else 1.0
    return abs(coefficients.std / coefficients.output)
