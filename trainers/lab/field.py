"""One estimator's guidance as arrows over the exact ∇V, and its errors among those of all the others.

    ∇V(x) = score of the noised tilted law − score of the noised reference law          (exact)

Both are looked at where either law has mass. Draws are kept, so that another advantage of the same rollouts
costs nothing; what a choice can cost is bounded by ``trainers.lab.choices``. Source: arXiv 2604.17415,
section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from trainers.estimators.lookahead import lookahead_levels
from trainers.lab.choices import LOOKAHEADS, SAMPLES, STEPS, Choice
from trainers.lab.estimate import (
    Problem,
    Quality,
    first_order,
    rollouts,
    study_first_order,
    study_zeroth_order,
    zeroth_order,
)
from trainers.lab.mixture import reference_mixture, reference_reward, reference_schedule, step_near

SIDE, CONTOUR_SIDE = 11, 61
_MASS = 0.01  # arrows are drawn where a law has this share of its largest density
_DEVIATIONS = 2.3


@dataclass(frozen=True)
class Field:
    """What is drawn: P places, float32, in the plane of the noised states.

    Attributes:
        noise: Noise level of the states, that of the nearest step.
        signal: Coefficient of x0 at that step.
        points: (P, 2) places.
        truth: (P, 2) ∇V there.
        estimate: (P, 2) the estimator's value there.
        weights: (P,) density of the noised tilted law, summing to 1.
        spacing: Distance between neighbouring places.
        axes: (2, M) coordinates at which the densities are known.
        reference: (M, M) density of the noised reference, second coordinate first.
        tilted: (M, M) that of the noised tilted law.
        evaluations: Network evaluations per arrow.
    """

    noise: float
    signal: float
    points: Tensor
    truth: Tensor
    estimate: Tensor
    weights: Tensor
    spacing: float
    axes: Tensor
    reference: Tensor
    tilted: Tensor
    evaluations: int

    @property
    def rmse(self) -> float:
        """Root mean squared error per coordinate under the noised tilted law."""
        return float((self.weights @ (self.estimate - self.truth).pow(2).mean(1)).sqrt())

    @property
    def size(self) -> float:
        """Root mean square of ∇V per coordinate under the noised tilted law."""
        return float((self.weights @ self.truth.pow(2).mean(1)).sqrt())


def problem_of(family: str, beta: float) -> Problem:
    """Return the laboratory's problem, in float32."""
    return Problem(
        reference_mixture().to(torch.float32), reference_reward(), reference_schedule(family, STEPS), beta
    )


def step_of(choice: Choice) -> int:
    """Return the step that a choice's noise level stands for.

    Never the first, where a flow's state tells nothing of the clean point, nor the last, which adds no noise.
    """
    schedule = reference_schedule(choice.family, STEPS)
    return min(max(step_near(schedule, choice.noise), 1), STEPS - 2)


def estimate_field(choice: Choice) -> Field:
    """Return the field of the chosen estimator."""
    problem, step = problem_of(choice.family, choice.beta), step_of(choice)
    signal, noise = float(problem.schedule.signal[step]), float(problem.schedule.noise[step])
    points, spacing, axes = places(problem, step)
    if choice.order == "first":
        evaluations = len(lookahead_levels(step, STEPS, choice.lookahead))
        estimate = first_order(problem, step, points, choice.lookahead)
    else:
        evaluations = choice.samples * (STEPS - 1 - step) + 1
        key = (choice.family, step, choice.rollout, choice.injected, choice.samples, choice.beta, choice.seed)
        estimate = zeroth_order(problem, step, *_drawn(*key), choice.advantage, choice.injected)
    weights = problem.tilted.density(points, signal, noise)
    across = torch.stack(torch.meshgrid(axes[0], axes[1], indexing="xy"), -1)
    return Field(
        noise,
        signal,
        points,
        problem.truth(step, points),
        estimate,
        weights / weights.sum(),
        spacing,
        axes,
        problem.reference.density(across, signal, noise),
        problem.tilted.density(across, signal, noise),
        evaluations,
    )


def places(problem: Problem, step: int) -> tuple[Tensor, float, Tensor]:
    """Return the places (P, 2) where either law has mass, their spacing, and the axes (2, M) around them."""
    signal, noise = float(problem.schedule.signal[step]), float(problem.schedule.noise[step])
    centres = signal * torch.cat([problem.reference.centres, problem.tilted.centres])
    reach = _DEVIATIONS * (signal**2 + noise**2) ** 0.5
    low, high = centres.min(0).values - reach, centres.max(0).values + reach
    middle, half = (low + high) / 2.0, float((high - low).max()) / 2.0
    line = torch.linspace(-half, half, SIDE)
    grid = torch.stack(torch.meshgrid(line + middle[0], line + middle[1], indexing="xy"), -1).flatten(0, 1)
    shares = [law.density(grid, signal, noise) for law in (problem.reference, problem.tilted)]
    kept = torch.stack([share / share.max() for share in shares]).amax(0) >= _MASS
    wide = torch.linspace(-1.08 * half, 1.08 * half, CONTOUR_SIDE)
    return grid[kept], float(line[1] - line[0]), torch.stack([wide + middle[0], wide + middle[1]])


@lru_cache(maxsize=16)
def _drawn(
    family: str, step: int, rollout: str, injected: float, samples: int, beta: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the noise (P, N, 2) and the rewards (P, N) of rollouts from every place."""
    problem = problem_of(family, beta)
    points, _, _ = places(problem, step)
    generator = torch.Generator().manual_seed(seed)
    return rollouts(problem, step, points, samples, rollout == "localised", injected, generator)


def estimator_name(choice: Choice) -> str:
    """Return the name of the chosen estimator in ``Quality``."""
    if choice.order == "first":
        return f"gradient, lookahead {len(lookahead_levels(step_of(choice), STEPS, choice.lookahead))}"
    return f"{choice.advantage}, {'one SDE step, then ODE' if choice.localised else 'SDE'}"


def errors(choice: Choice) -> tuple[Quality, ...]:
    """Return the figures of every estimator at every cost, at the step and the noise of a choice."""
    return _errors(choice.family, step_of(choice), choice.injected, choice.beta, choice.seed)


@lru_cache(maxsize=32)
def _errors(family: str, step: int, injected: float, beta: float, seed: int) -> tuple[Quality, ...]:
    problem, found = problem_of(family, beta), []
    for localised in (False, True):
        found += study_zeroth_order(
            problem, step, SAMPLES, localised, injected, seed=seed, draws=2 * max(SAMPLES)
        )
    depths = dict.fromkeys(min(depth, STEPS - step) for depth in LOOKAHEADS)
    return (*found, *study_first_order(problem, step, tuple(depths), seed=seed))
