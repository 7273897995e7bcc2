"""The affine relations between a network's output o, the clean estimate x̂0 and the score.

    flow:       x̂0 = x − t·v                     s = −(x + (1 − t) v)/t        ∂s/∂v = −(1 − t)/t
    diffusion:  x̂0 = (x − √(1−ᾱ) ε̂)/√ᾱ          s = −ε̂/√(1 − ᾱ)              ∂s/∂ε̂ = −1/√(1 − ᾱ)

At t = 1 the flow's ∂s/∂v is 0, so nothing in this project divides by it: losses live in output space.
Source: Lee et al., arXiv 2604.17415, section 3; Lipman et al., arXiv 2210.02747.
"""

from __future__ import annotations

from torch import Tensor

from trainers.core.schedule import FLOW, Schedule


def predict_clean(schedule: Schedule, step: int, latents: Tensor, output: Tensor) -> Tensor:
    """Return x̂0 from a state and the network's output.

    Args:
        schedule: The noise levels.
        step: Index of the state in [0, T].
        latents: (B, C, H, W) state x.
        output: (B, C, H, W) network output at x.

    Returns:
        (B, C, H, W) estimate of the clean latents.
    """
    noise = float(schedule.noise[step])
    if schedule.family == FLOW:
        return latents - noise * output
    return (latents - noise * output) / float(schedule.signal[step])


def predict_noise(schedule: Schedule, step: int, latents: Tensor, output: Tensor) -> Tensor:
    """Return ε̂ from a state and the network's output; shapes as in ``predict_clean``."""
    if schedule.family == FLOW:
        return latents + float(schedule.signal[step]) * output
    return output


def score(schedule: Schedule, step: int, latents: Tensor, output: Tensor) -> Tensor:
    """Return the score ∇ log p_t(x) = −ε̂/(noise level); shapes as in ``predict_clean``.

    Raises:
        ValueError: At the clean end, where the score of the noised law does not exist.
    """
    noise = float(schedule.noise[step])
    if noise == 0.0:
        raise ValueError("The score needs a positive noise level.")
    return -predict_noise(schedule, step, latents, output) / noise


def score_slope(schedule: Schedule, step: int) -> float:
    """Return the scalar ∂s/∂o at a step (0 for a flow at t = 1)."""
    signal, noise = float(schedule.signal[step]), float(schedule.noise[step])
    if noise == 0.0:
        raise ValueError("The score needs a positive noise level.")
    return -(signal / noise if schedule.family == FLOW else 1.0 / noise)


def output_from_clean(schedule: Schedule, step: int, latents: Tensor, clean: Tensor) -> Tensor:
    """Return the output whose clean estimate is ``clean``; inverse of ``predict_clean``.

    Raises:
        ValueError: At the clean end, where every output has the same x̂0.
    """
    noise = float(schedule.noise[step])
    if noise == 0.0:
        raise ValueError("The output is undetermined at noise level 0.")
    signal = 1.0 if schedule.family == FLOW else float(schedule.signal[step])
    return (latents - signal * clean) / noise


def clean_slope(schedule: Schedule, step: int) -> float:
    """Return |∂x̂0/∂o| at a step: t for flows, √(1 − ᾱ)/√ᾱ for diffusion."""
    noise = float(schedule.noise[step])
    return noise if schedule.family == FLOW else noise / float(schedule.signal[step])
