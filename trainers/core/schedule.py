"""Noise schedules of the two model families, under one convention of time and sign.

x0 is clean and the noise level runs from 1 to 0 while sampling. A ``Schedule`` holds T + 1 noise levels
for T sampling steps; adapters convert a scheduler's own arrays at the boundary. Everything is float64 on
the CPU because these are a few dozen scalars that end up in exponents and quotients.

Shape letters used in this package: B rows, C H W latents, K branches, T sampling steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FLOW, DIFFUSION = "flow", "diffusion"


@dataclass(frozen=True)
class Schedule:
    """The noise levels a sampler visits.

    Attributes:
        family: ``flow`` (x_t = (1 − t) x0 + t ε, output v = ε − x0) or ``diffusion``
            (x_t = √ᾱ x0 + √(1 − ᾱ) ε, output ε̂).
        signal: (T + 1,) float64, the coefficient of x0: 1 − t or √ᾱ.
        noise: (T + 1,) float64, the coefficient of ε: t or √(1 − ᾱ).
        timesteps: (T,) float64, what the network is given at each step.
    """

    family: str
    signal: Tensor
    noise: Tensor
    timesteps: Tensor

    @property
    def steps(self) -> int:
        """Number of sampling steps T."""
        return len(self.timesteps)

    def visiting(self, levels: Sequence[int]) -> Schedule:
        """Return the schedule that visits only some of the T + 1 states, in order.

        Args:
            levels: Rising indices into the T + 1 noise levels, at least two.
        """
        kept = list(levels)
        return Schedule(self.family, self.signal[kept], self.noise[kept], self.timesteps[kept[:-1]])

    def intervals(self) -> Tensor:
        """Return (T,) Δ, the time each step covers.

        For flows the fall of t; for diffusion the fall of the training time step, in units of the first one.
        """
        if self.family == FLOW:
            return self.noise[:-1] - self.noise[1:]
        times = torch.cat([self.timesteps, self.timesteps.new_zeros(1)])
        return (times[:-1] - times[1:]) / times[0]

    def times(self) -> Tensor:
        """Noise level in [0, 1] of each of the T + 1 states: t for flows, √(1 − ᾱ) for diffusion."""
        return self.noise


def flow_schedule(sigmas: Tensor, timesteps: Tensor) -> Schedule:
    """Build the schedule of a rectified flow.

    Args:
        sigmas: (T + 1,) noise levels t from 1 down to 0.
        timesteps: (T,) values the network is conditioned on (usually 1000 t).

    Raises:
        ValueError: The levels do not fall strictly from at most 1 to at least 0.
    """
    levels = sigmas.detach().double().cpu()
    _require_falling(levels, len(timesteps))
    return Schedule(FLOW, 1.0 - levels, levels, timesteps.detach().double().cpu())


def diffusion_schedule(alphas_cumprod: Tensor, timesteps: Tensor) -> Schedule:
    """Build the schedule of a variance-preserving diffusion.

    Args:
        alphas_cumprod: (T + 1,) ᾱ of the visited states, rising towards 1.
        timesteps: (T,) integer training steps the network is conditioned on.

    Raises:
        ValueError: The noise levels do not fall strictly within [0, 1].
    """
    alphas = alphas_cumprod.detach().double().cpu()
    levels = (1.0 - alphas).clamp(min=0.0).sqrt()
    _require_falling(levels, len(timesteps))
    return Schedule(DIFFUSION, alphas.sqrt(), levels, timesteps.detach().double().cpu())


def _require_falling(levels: Tensor, steps: int) -> None:
    if len(levels) != steps + 1:
        raise ValueError(f"{steps} steps need {steps + 1} noise levels, got {len(levels)}.")
    if not bool((levels[1:] < levels[:-1]).all()) or levels[0] > 1 or levels[-1] < 0:
        raise ValueError("Noise levels must fall strictly, from at most 1 to at least 0.")
