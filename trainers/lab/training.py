"""Train every row on the mixture and say how near it comes to the law it should reach.

The trainer, the estimators and the objective are those of real runs; only the policy is a perfect network
with a small correction. All rows get the same number of network evaluations, β = 1 wherever the row has one,
and are judged on samples of the deterministic sampler, the one that users call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from trainers.config import RunConfig
from trainers.core.schedule import FLOW
from trainers.core.transition import mean
from trainers.custom import method_of
from trainers.lab.mixture import LinearReward, Mixture, reference_mixture, reference_reward
from trainers.lab.model import LabModel, LabPolicy, LabReward
from trainers.loop import Trainer
from trainers.method import Method
from trainers.samplers.kernels import ode, stochastic_kernel

STEPS = {"flow": 20, "diffusion": 25}
SAMPLES, DIRECTIONS = 8192, 64
PROMPT = "a point"


@dataclass(frozen=True)
class Outcome:
    """What a row reached.

    Attributes:
        method: The row.
        family: ``flow`` or ``diffusion``.
        distance: Sliced Wasserstein-1 distance of its samples to the tilted law.
        share: That distance over the reference model's.
        floor: The share that a perfect tilted model has through the same sampler.
        reward: Mean reward of its samples.
        kl: Path KL to the reference model in nats (an upper bound of the samples' KL).
        evaluations: Network evaluations spent.
        updates: Optimiser steps taken.
        seconds: Wall-clock time.
    """

    method: str
    family: str
    distance: float
    share: float
    floor: float
    reward: float
    kl: float
    evaluations: int
    updates: int
    seconds: float

    def record(self) -> dict[str, Any]:
        """Return the fields as a mapping."""
        return asdict(self)


def lab_config(method: str, family: str, seed: int = 0, **settings: Any) -> RunConfig:
    """Return the laboratory's settings of a row: the same rollouts and optimiser for all, β = 1."""
    row = method_of(RunConfig(estimator=method))
    steps = STEPS[family]
    base: dict[str, Any] = {
        "estimator": method,
        "seed": seed,
        "rollout_steps": steps,
        "noise_level": 0.7 if family == FLOW else 1.0,
        "prompts_per_update": 1,
        "group_size": 256,
        "advantage": "mean",
        "advantage_clamp": 1000.0,
        "clip_range": 10.0,
        "kl_weight": 1.0,
        "gradient_units": "reward",
        "reward_scale": 1.0,
        "roots_per_prompt": 256 if row.order == "first" else 32,
        "branches": _branches(row, steps),
        "learning_rate": 5e-3,
        "weight_decay": 0.0,
        "micro_batch": 4096,
        "max_grad_norm": 1.0,
    }
    return RunConfig(**(base | dict(SETTINGS.get(method, {})) | settings))


# Where a row's own idea needs another setting than the common one.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "sqdf": {"lookahead_steps": 4},
    "diffusion_nft": {
        "advantage": "bounded",
        "advantage_clamp": 5.0,
        "kl_weight": 1e-4,
        "old_decay_max": 0.5,
    },
}


def _branches(row: Method, steps: int) -> tuple[int, ...]:
    if row.branching == "tree":
        return (4, 0, 0, 2)
    if row.name == "rsm_zeroth_order_flow":
        return (8, 0, 8, 0, 8, 0, 8)  # the noisy end only: that is the method's point
    return tuple(8 if step % 5 == 0 else 0 for step in range(steps - 1))


def lab_trainer(config: RunConfig, family: str) -> Trainer:
    """Return a trainer of the mixture."""
    model = LabModel(family, reference_mixture(), config.seed)
    reward = LabReward(reference_reward())
    return Trainer(config, model, reward, [PROMPT], torch.float32, LabPolicy(model, config.micro_batch))


def train_row(config: RunConfig, family: str, evaluations: int) -> Outcome:
    """Train a row until it has spent its network evaluations, and judge it."""
    started = time.perf_counter()
    trainer = lab_trainer(config, family)
    while trainer.policy.evaluations < evaluations:
        trainer.advance()
    return judge(config.estimator, trainer, family, time.perf_counter() - started)


def judge(method: str, trainer: Trainer, family: str, seconds: float) -> Outcome:
    """Compare a trainer's policy with the exact tilted law."""
    reference, reward = reference_mixture(), reference_reward()
    tilted = reference.tilted(reward, 1.0)
    steps = STEPS[family]
    target = tilted.sample(SAMPLES, torch.Generator().manual_seed(1)).float()
    spent = trainer.policy.evaluations
    samples = policy_samples(trainer)
    start = sliced_distance(law_samples(family, reference, steps), target)
    distance = sliced_distance(samples, target)
    return Outcome(
        method,
        family,
        distance,
        distance / start,
        sliced_distance(law_samples(family, tilted, steps), target) / start,
        float(reward(samples).mean()),
        path_kl(trainer),
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


def frontier(betas: tuple[float, ...]) -> list[dict[str, float]]:
    """Return β, mean reward and KL in nats of the exact tilted laws: the best any method can do."""
    reference, reward = reference_mixture(), reference_reward()
    found = []
    for beta in betas:
        tilted = reference.tilted(reward, beta)
        gain = float(tilted.log_weights.exp() @ reward(tilted.centres))
        found.append(
            {"beta": beta, "reward": gain, "kl": gain / beta - _log_partition(reference, reward, beta)}
        )
    return found


def _log_partition(reference: Mixture, reward: LinearReward, beta: float) -> float:
    """Return log E[exp(r/β)] under the reference."""
    per_mode = reference.log_weights + reward(reference.centres) / beta
    return float(torch.logsumexp(per_mode, 0) + reward.slope.pow(2).sum() / (2.0 * beta**2))
