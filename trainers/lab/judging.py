"""How near a trained policy comes to the exact tilted law.

Samples come from the deterministic sampler, the one that users call, over the schedule of the run.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from trainers.core.transition import mean
from trainers.lab.mixture import Mixture, reference_mixture, reference_reward
from trainers.lab.model import LabModel
from trainers.loop import Trainer
from trainers.samplers.kernels import ode, stochastic_kernel

SAMPLES, DIRECTIONS = 8192, 64


@dataclass(frozen=True)
class Outcome:
    """What a row reached.

    Attributes:
        method: The row.
        family: ``flow`` or ``diffusion``.
        beta: The KL strength of the tilted law.
        distance: Sliced Wasserstein-1 distance of its samples to the tilted law.
        share: That distance over the reference model's.
        floor: The share that a perfect tilted model has through the same sampler.
        reward: Mean reward of its samples.
        kl: Path KL to the reference model in nats (an upper bound of the samples' KL).
        evaluations: Network evaluations spent.
        updates: Optimiser steps taken.
        seconds: Wall-clock time.
        error: What ended the training early; the last finite policy is judged. Empty if nothing did.
    """

    method: str
    family: str
    beta: float
    distance: float
    share: float
    floor: float
    reward: float
    kl: float
    evaluations: int
    updates: int
    seconds: float
    error: str = ""

    def record(self) -> dict[str, Any]:
        """Return the fields as a mapping."""
        return asdict(self)


def judge(method: str, trainer: Trainer, family: str, seconds: float, beta: float = 1.0) -> Outcome:
    """Compare a trainer's policy with the exact tilted law of strength ``beta``."""
    reference, reward = reference_mixture(), reference_reward()
    tilted = reference.tilted(reward, beta)
    steps = trainer.schedule.steps
    target = tilted.sample(SAMPLES, torch.Generator().manual_seed(1)).float()
    spent = trainer.policy.evaluations
    with trainer.policy.as_shipped():
        samples, kl = policy_samples(trainer), path_kl(trainer)
    start = sliced_distance(law_samples(family, reference, steps), target)
    distance = sliced_distance(samples, target)
    return Outcome(
        method,
        family,
        beta,
        distance,
        distance / start,
        sliced_distance(law_samples(family, tilted, steps), target) / start,
        float(reward(samples).mean()),
        kl,
        spent,
        trainer.progress.updates,
        seconds,
    )


def initial_points(count: int = SAMPLES) -> Tensor:
    """Return the (count, 2, 1, 1) initial noise on which everything is judged."""
    return torch.randn((count, 2, 1, 1), generator=torch.Generator().manual_seed(2))


def policy_samples(trainer: Trainer) -> Tensor:
    """Return (SAMPLES, 2) points of the trained policy's deterministic sampler."""
    schedule, latents = trainer.schedule, initial_points()
    rows = trainer.conditions.select(torch.zeros(len(latents), dtype=torch.long))
    for step in range(schedule.steps):
        output = trainer.policy.sample_output(latents, schedule, step, rows)
        latents = mean(ode(schedule, step), latents, output)
    return latents.flatten(1)


def law_samples(family: str, law: Mixture, steps: int) -> Tensor:
    """Return (SAMPLES, 2) points of a perfect model of a law through the same sampler."""
    model = LabModel(family, law)
    schedule, points = model.schedule(steps), initial_points().flatten(1)
    for step in range(schedule.steps):
        points = mean(ode(schedule, step), points, model.mixture.output(schedule, step, points))
    return points


def path_kl(trainer: Trainer, count: int = 1024) -> float:
    """Return Σ_t E‖μ_θ − μ_ref‖²/(2σ²) in nats along the trained policy's stochastic trajectories."""
    schedule, config = trainer.schedule, trainer.config
    kernel = stochastic_kernel(schedule.family, config.kernel)
    generator = torch.Generator().manual_seed(3)
    latents = initial_points(count)
    rows = trainer.conditions.select(torch.zeros(count, dtype=torch.long))
    total = 0.0
    for step in range(schedule.steps):
        coefficients = kernel(schedule, step, config.noise_level)
        output = trainer.policy.sample_output(latents, schedule, step, rows)
        if coefficients.std > 0:
            base = trainer.policy.reference(latents, schedule, step, rows)
            change = (output - base).pow(2).flatten(1).sum(1).mean()
            total += coefficients.natural_weight * float(change)
        noise = torch.randn(latents.shape, generator=generator)
        latents = mean(coefficients, latents, output) + coefficients.std * noise
    return total


def sliced_distance(first: Tensor, second: Tensor) -> float:
    """Return the sliced Wasserstein-1 distance between two sets of equally many points (N, 2)."""
    angles = torch.arange(DIRECTIONS) * math.pi / DIRECTIONS
    directions = torch.stack([angles.cos(), angles.sin()])
    one, two = ((points.float() @ directions).sort(0).values for points in (first, second))
    return float((one - two).abs().mean())
