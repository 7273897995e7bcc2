"""Transition kernels: functions (schedule, step, noise level) → ``Coefficients``.

Scalars are Python floats (float64). Kernels with σ = 0 are ODE steps. Sources: Flow-GRPO (Liu et al.,
arXiv 2505.05470) for the flow SDE, Flow-CPS (arXiv 2509.05952), DDIM (Song et al., arXiv 2010.02502).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from trainers.core.schedule import FLOW, Schedule
from trainers.core.transition import Coefficients
from trainers.errors import InputError
from trainers.samplers.families import FAMILY_KERNELS, kernel_problems

Kernel = Callable[[Schedule, int, float], Coefficients]
PCPO_SLOPE = 4.5


def ode(schedule: Schedule, step: int, noise_level: float = 0.0) -> Coefficients:
    """Return the deterministic step: Euler for flows, DDIM with η = 0 for diffusion."""
    if schedule.family == FLOW:
        return Coefficients(1.0, float(schedule.noise[step + 1] - schedule.noise[step]), 0.0)
    return ddim(schedule, step, 0.0)


def flow_sde(schedule: Schedule, step: int, noise_level: float) -> Coefficients:
    """Return Flow-GRPO's SDE step with τ = a·√(t/(1 − t)).

    μ = x(1 − τ²Δ/(2t)) − Δ(1 + τ²(1−t)/(2t))·v, σ = τ√Δ. At t = 1 the denominator 1 − t uses the next
    noise level instead, as in the published code. Source: arXiv 2505.05470, section 4.2.

    Args:
        schedule: A flow schedule.
        step: Step index in [0, T − 1].
        noise_level: a ≥ 0.
    """
    t, t_next = float(schedule.noise[step]), float(schedule.noise[step + 1])
    delta = t - t_next
    tau_squared = noise_level**2 * t / (1.0 - (t if t < 1.0 else t_next))
    state = 1.0 - tau_squared * delta / (2.0 * t)
    output = -delta * (1.0 + tau_squared * (1.0 - t) / (2.0 * t))
    return Coefficients(state, output, math.sqrt(tau_squared * delta))


def flow_constant(schedule: Schedule, step: int, noise_level: float) -> Coefficients:
    """Return DanceGRPO's SDE step, whose noise rate is the same at every step: τ = η.

    μ = x − Δ·v + ½η²Δ·s with the score s, σ = η√Δ. Source: arXiv 2505.07818 and its published program.

    Args:
        schedule: A flow schedule.
        step: Step index in [0, T − 1].
        noise_level: η ≥ 0.
    """
    t = float(schedule.noise[step])
    delta = t - float(schedule.noise[step + 1])
    half = noise_level**2 * delta / (2.0 * t)
    return Coefficients(1.0 - half, -delta - half * (1.0 - t), noise_level * math.sqrt(delta))


def flow_cps(schedule: Schedule, step: int, noise_level: float) -> Coefficients:
    """Return the coefficients-preserving step: σ = t'·sin(aπ/2), the rest of t' stays on ε̂.

    μ = (1 − t')·x̂0 + √(t'² − σ²)·ε̂. Source: arXiv 2509.05952.
    """
    t, t_next = float(schedule.noise[step]), float(schedule.noise[step + 1])
    std = t_next * math.sin(noise_level * math.pi / 2.0)
    kept = math.sqrt(max(t_next**2 - std**2, 0.0))
    return Coefficients((1.0 - t_next) + kept, -t * (1.0 - t_next) + kept * (1.0 - t), std)


def ddim(schedule: Schedule, step: int, noise_level: float) -> Coefficients:
    """Return the DDIM step with η = ``noise_level`` (1 is DDPM).

    σ = η·√((1−ᾱ')/(1−ᾱ))·√(1 − ᾱ/ᾱ'), μ = √(ᾱ'/ᾱ)·x − c·ε̂ with c = √(1−ᾱ)√(ᾱ'/ᾱ) − √(1−ᾱ'−σ²).
    Source: arXiv 2010.02502, equations 12 and 16.
    """
    signal, noise = float(schedule.signal[step]), float(schedule.noise[step])
    signal_next, noise_next = float(schedule.signal[step + 1]), float(schedule.noise[step + 1])
    shrink = max(1.0 - (signal / signal_next) ** 2, 0.0)
    std = noise_level * (noise_next / noise) * math.sqrt(shrink)
    direction = math.sqrt(max(noise_next**2 - std**2, 0.0))
    ratio = signal_next / signal
    return Coefficients(ratio, direction - ratio * noise, std)


def pcpo(schedule: Schedule, step: int, noise_level: float) -> Coefficients:
    """Return the DDIM step with PCPO's σ, as its published program samples it: the larger root.

    σ = η·(w·c₁ + √D)/(1 + w²) with c₁ = √(1−ᾱ)·√(ᾱ'/ᾱ), D = (1 + w²)(1 − ᾱ') − c₁² and w = 4.5. Its real
    |k/σ| stays near that of DDPM (0.53 instead of 0.52 on average over 50 steps of Stable Diffusion 1.5).
    Source: PCPO, arXiv 2509.25774, and its published program.
    """
    return _pcpo(schedule, step, noise_level, 1.0)


def pcpo_low(schedule: Schedule, step: int, noise_level: float) -> Coefficients:
    """Return the DDIM step with the smaller root of ``pcpo``: |k/σ| = w = 4.5 at every step."""
    return _pcpo(schedule, step, noise_level, -1.0)


def _pcpo(schedule: Schedule, step: int, noise_level: float, sign: float) -> Coefficients:
    ratio = float(schedule.signal[step + 1]) / float(schedule.signal[step])
    noise, noise_next = float(schedule.noise[step]), float(schedule.noise[step + 1])
    reach = ratio * noise
    inner = max((1.0 + PCPO_SLOPE**2) * noise_next**2 - reach**2, 0.0)
    std = noise_level * (PCPO_SLOPE * reach + sign * math.sqrt(inner)) / (1.0 + PCPO_SLOPE**2)
    std = min(std, noise_next)
    return Coefficients(ratio, math.sqrt(noise_next**2 - std**2) - reach, std)


KERNELS: dict[str, Kernel] = {
    "ode": ode,
    "flow_sde": flow_sde,
    "flow_constant": flow_constant,
    "flow_cps": flow_cps,
    "ddim": ddim,
    "pcpo": pcpo,
    "pcpo_low": pcpo_low,
}


def stochastic_kernel(family: str, name: str = "auto") -> Kernel:
    """Return a stochastic kernel by name; ``auto`` is the flow SDE or DDIM-η.

    Raises:
        InputError: The kernel is not one of the family's.
    """
    if found := kernel_problems(family, name):
        raise InputError(*found)
    return KERNELS[FAMILY_KERNELS[family][0] if name == "auto" else name]
