"""A Gaussian mixture in the plane with a linear reward: reference, tilted law and value guidance, all exact.

With x0 ~ Σ w_k N(c_k, I) and r(x) = ⟨a, x⟩ + b, the tilted law p(x0)·exp(r/β) is again such a mixture, with
centres c_k + a/β and weights w_k·exp(⟨a, c_k⟩/β). Noised to x = signal·x0 + noise·ε both laws stay
mixtures of variance signal² + noise², so scores, clean estimates and ∇V = score of the tilted − score
of the reference are elementary. Source: arXiv 2604.17415, section 4.3 (the toy study).

Points are (…, 2) tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.core.schedule import FLOW, Schedule, diffusion_schedule, flow_schedule


@dataclass(frozen=True)
class Mixture:
    """Σ w_k N(c_k, I).

    Attributes:
        centres: (K, 2) c_k.
        log_weights: (K,) log w_k, normalised.
    """

    centres: Tensor
    log_weights: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw (count, 2) clean points."""
        modes = torch.multinomial(self.log_weights.exp(), count, replacement=True, generator=generator)
        noise = torch.randn((count, 2), generator=generator, dtype=self.centres.dtype)
        return self.centres[modes] + noise

    def shares(self, points: Tensor, signal: float, noise: float) -> Tensor:
        """Return P(mode k | x) (…, K) at noisy points (…, 2)."""
        away = points.unsqueeze(-2) - signal * self.centres
        return torch.softmax(self.log_weights - away.pow(2).sum(-1) / (2.0 * (signal**2 + noise**2)), -1)

    def clean(self, points: Tensor, signal: float, noise: float) -> Tensor:
        """Return E[x0 | x] (…, 2) at noisy points (…, 2)."""
        mean_centre = self.shares(points, signal, noise) @ self.centres
        return mean_centre + signal / (signal**2 + noise**2) * (points - signal * mean_centre)

    def score(self, points: Tensor, signal: float, noise: float) -> Tensor:
        """Return ∇ log p of the noised law (…, 2) at points (…, 2)."""
        mean_centre = self.shares(points, signal, noise) @ self.centres
        return (signal * mean_centre - points) / (signal**2 + noise**2)

    def density(self, points: Tensor, signal: float, noise: float) -> Tensor:
        """Return the density (…,) of the noised law at points (…, 2)."""
        variance = signal**2 + noise**2
        away = points.unsqueeze(-2) - signal * self.centres
        exponents = self.log_weights - away.pow(2).sum(-1) / (2.0 * variance)
        return exponents.logsumexp(-1).exp() / (2.0 * math.pi * variance)

    def output(self, schedule: Schedule, step: int, points: Tensor) -> Tensor:
        """Return what a perfect network says: v = ε − x0 (flow) or ε (diffusion), given x."""
        signal, noise = float(schedule.signal[step]), float(schedule.noise[step])
        clean = self.clean(points, signal, noise)
        if schedule.family == FLOW:
            return (points - clean) / noise
        return (points - signal * clean) / noise

    def tilted(self, reward: LinearReward, beta: float) -> Mixture:
        """Return the mixture proportional to p(x)·exp(r(x)/β)."""
        shift = reward.slope.to(self.centres) / beta
        weights = self.log_weights + self.centres @ shift
        return Mixture(self.centres + shift, torch.log_softmax(weights, 0))

    def to(self, dtype: torch.dtype) -> Mixture:
        """Return the mixture in another precision."""
        return Mixture(self.centres.to(dtype), self.log_weights.to(dtype))


@dataclass(frozen=True)
class LinearReward:
    """r(x) = ⟨slope, x⟩ + offset, on points (…, 2)."""

    slope: Tensor
    offset: float

    def __call__(self, points: Tensor) -> Tensor:
        """Return (…,) rewards."""
        return points @ self.slope.to(points) + self.offset


def reference_mixture() -> Mixture:
    """Return the three equal modes of the reference case, in float64."""
    root = math.sqrt(3.0)
    centres = torch.tensor([[3.0, -root], [-3.0, -root], [0.0, 2.0 * root]], dtype=torch.float64)
    return Mixture(centres, torch.full((3,), -math.log(3.0), dtype=torch.float64))


def reference_reward() -> LinearReward:
    """Return r(x) = −x₁/2 + 3."""
    return LinearReward(torch.tensor([-0.5, 0.0], dtype=torch.float64), 3.0)


def value_gradient(
    reference: Mixture, tilted: Mixture, points: Tensor, signal: float, noise: float
) -> Tensor:
    """Return ∇V (…, 2): what must be added to the reference's score."""
    return tilted.score(points, signal, noise) - reference.score(points, signal, noise)


def reference_diffusion(every: int = 10) -> Schedule:
    """Return the linear β-schedule 1e-4 → 0.03 over 500 steps, visited at every ``every``-th step."""
    alphas = (1.0 - torch.linspace(1e-4, 0.03, 500, dtype=torch.float64)).cumprod(0)
    times = torch.arange(500 - every, -1, -every)
    return diffusion_schedule(
        torch.cat([alphas[times], torch.ones(1, dtype=torch.float64)]), times.clamp(min=1)
    )


def reference_flow(steps: int = 50) -> Schedule:
    """Return a flow from t = 1 to 0 in even steps."""
    levels = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return flow_schedule(levels, 1000.0 * levels[:-1])


def reference_schedule(family: str, steps: int) -> Schedule:
    """Return the reference schedule of ``flow`` or ``diffusion`` with ``steps`` steps."""
    return reference_flow(steps) if family == FLOW else reference_diffusion(500 // steps)


def step_near(schedule: Schedule, noise: float) -> int:
    """Return the step whose state's noise level is nearest."""
    return int((schedule.noise[:-1] - noise).abs().argmin())
