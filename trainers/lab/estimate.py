"""How good is each estimator of ∇V? Error, bias, variance and cost against the exact value guidance.

Zeroth-order estimates come from rollouts that leave a point with the stochastic kernel and go on
stochastically or, "localised", deterministically; one set of rollouts serves every advantage and every sample
count, split into independent groups. First-order estimates read the reward's gradient through an m-step
lookahead. In score units

    zeroth order:  Ψ̂ = (σ/κ)·mean_N(Â·ε),  κ = k/(∂s/∂o)          first order:  Ψ̂ = ∇_x r(x̂0(x))

Source: arXiv 2604.17415, section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from trainers.core.advantages import advantages
from trainers.core.parameterization import predict_clean, score_slope
from trainers.core.schedule import Schedule
from trainers.core.transition import mean
from trainers.estimators.lookahead import lookahead_levels
from trainers.lab.mixture import LinearReward, Mixture, value_gradient
from trainers.samplers.kernels import ode, stochastic_kernel

ADVANTAGES = ("raw", "mean", "group", "tilted")


@dataclass(frozen=True)
class Problem:
    """What is estimated: the laws, the reward, the schedule and β."""

    reference: Mixture
    reward: LinearReward
    schedule: Schedule
    beta: float = 1.0

    @property
    def tilted(self) -> Mixture:
        """The law that fine-tuning should reach."""
        return self.reference.tilted(self.reward, self.beta)

    def points(self, step: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw (count, 2) states from the tilted law, noised to a step's level."""
        clean = self.tilted.sample(count, generator)
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        return float(self.schedule.signal[step]) * clean + float(self.schedule.noise[step]) * noise

    def truth(self, step: int, points: Tensor) -> Tensor:
        """Return ∇V (P, 2) at points (P, 2)."""
        signal, noise = float(self.schedule.signal[step]), float(self.schedule.noise[step])
        return value_gradient(self.reference, self.tilted, points, signal, noise)


@dataclass(frozen=True)
class Quality:
    """One estimator's figures, per coordinate, over all points.

    Attributes:
        estimator: What was measured.
        samples: N.
        rmse: Root mean squared error.
        bias: Root mean square of the mean error.
        std: Root mean variance between independent estimates.
        evaluations: Network evaluations per estimate.
    """

    estimator: str
    samples: int
    rmse: float
    bias: float
    std: float
    evaluations: int

    def record(self) -> dict:
        """Return the fields as a mapping."""
        return asdict(self)


def rollouts(
    problem: Problem,
    step: int,
    points: Tensor,
    count: int,
    localised: bool,
    noise_level: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Let ``count`` stochastic steps leave each point and run them to the end.

    Returns:
        The first step's noise (P, count, 2) and the rewards (P, count).
    """
    schedule, kernel = problem.schedule, stochastic_kernel(problem.schedule.family)
    noise = torch.randn((len(points), count, 2), generator=generator, dtype=points.dtype)
    coefficients = kernel(schedule, step, noise_level)
    center = mean(coefficients, points, problem.reference.output(schedule, step, points))
    states = center.unsqueeze(1) + coefficients.std * noise
    for later in range(step + 1, schedule.steps):
        output = problem.reference.output(schedule, later, states)
        coefficients = ode(schedule, later) if localised else kernel(schedule, later, noise_level)
        states = mean(coefficients, states, output)
        if coefficients.std > 0:
            fresh = torch.randn(states.shape, generator=generator, dtype=states.dtype)
            states = states + coefficients.std * fresh
    return noise, problem.reward(states)


def zeroth_order(
    problem: Problem, step: int, noise: Tensor, rewards: Tensor, kind: str, noise_level: float
) -> Tensor:
    """Return Ψ̂ (…, 2) of groups of N samples: noise (…, N, 2), rewards (…, N)."""
    coefficients = stochastic_kernel(problem.schedule.family)(problem.schedule, step, noise_level)
    kappa = coefficients.output / score_slope(problem.schedule, step)
    values = advantages(rewards, kind, clamp=float("inf"), tilt=problem.beta)
    if kind != "tilted":
        values = values / problem.beta
    return coefficients.std / kappa * (values.unsqueeze(-1) * noise).mean(-2)


def first_order(problem: Problem, step: int, points: Tensor, lookahead: int) -> Tensor:
    """Return ∇_x r(x̂0(x))/β (P, 2) through ``lookahead`` deterministic steps, Jacobian included."""
    schedule = problem.schedule
    leaf = points.detach().requires_grad_(True)
    states, levels = leaf, lookahead_levels(step, schedule.steps, lookahead)
    for i, level in enumerate(levels):
        output = problem.reference.output(schedule, level, states)
        if i + 1 == len(levels):
            states = predict_clean(schedule, level, states, output)
        else:
            states = mean(ode(schedule.visiting([level, levels[i + 1]]), 0), states, output)
    (gradient,) = torch.autograd.grad(problem.reward(states).sum(), leaf)
    return gradient / problem.beta


def measure(estimates: Tensor, truth: Tensor, name: str, samples: int, evaluations: int) -> Quality:
    """Compare estimates (P, R, 2), R independent ones for each point, with the truth (P, 2)."""
    error = estimates - truth.unsqueeze(1)
    spread = estimates.var(1, correction=1) if estimates.shape[1] > 1 else torch.zeros_like(truth)
    # The mean of R estimates keeps 1/R of their variance, which is no bias.
    bias = (error.mean(1).pow(2) - spread / estimates.shape[1]).mean().clamp(min=0.0)
    return Quality(
        name,
        samples,
        float(error.pow(2).mean().sqrt()),
        float(bias.sqrt()),
        float(spread.mean().sqrt()),
        evaluations,
    )


def study_zeroth_order(
    problem: Problem,
    step: int,
    counts: Sequence[int],
    localised: bool,
    noise_level: float = 1.0,
    points: int = 30,
    kinds: Sequence[str] = ADVANTAGES,
    seed: int = 0,
    draws: int = 0,
) -> list[Quality]:
    """Measure every advantage at every sample count, at one step and noise level.

    ``draws`` samples, and at least the largest count, leave each point; several groups of the largest count
    are needed to tell its spread from its bias.
    """
    generator = torch.Generator().manual_seed(seed)
    places = problem.points(step, points, generator)
    truth = problem.truth(step, places)
    noise, rewards = rollouts(problem, step, places, max(draws, *counts), localised, noise_level, generator)
    found, way = [], "one SDE step, then ODE" if localised else "SDE"
    for kind in kinds:
        for count in counts:
            groups = noise.unflatten(1, (-1, count)), rewards.unflatten(1, (-1, count))
            estimates = zeroth_order(problem, step, *groups, kind, noise_level)
            cost = count * (problem.schedule.steps - 1 - step) + 1
            found.append(measure(estimates, truth, f"{kind}, {way}", count, cost))
    return found


def study_first_order(
    problem: Problem, step: int, depths: Sequence[int], points: int = 30, seed: int = 0
) -> list[Quality]:
    """Measure lookaheads of several depths at one step."""
    places = problem.points(step, points, torch.Generator().manual_seed(seed))
    truth = problem.truth(step, places)
    found = []
    for depth in depths:
        cost = len(lookahead_levels(step, problem.schedule.steps, depth))
        estimate = first_order(problem, step, places, depth).unsqueeze(1)
        found.append(measure(estimate, truth, f"gradient, lookahead {cost}", 1, cost))
    return found
