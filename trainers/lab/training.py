"""Train every row on the mixture and say how near it comes to the law it should reach.

The trainer, the estimators and the objective are those of real runs; only the policy is a perfect network
with a small correction. All rows get the same number of network evaluations, over which the learning rate
falls to nothing, and the same β wherever the row has one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from trainers.config import RunConfig
from trainers.custom import method_of
from trainers.errors import FaultError
from trainers.lab.judging import Outcome, judge
from trainers.lab.mixture import LinearReward, Mixture, reference_mixture, reference_reward
from trainers.lab.model import LabModel, LabPolicy, LabReward
from trainers.loop import Trainer
from trainers.method import Method

STEPS = {"flow": 20, "diffusion": 25}
PROMPT = "a point"
# A trajectory's end is independent of its start only under this much noise; with less, the best policy under
# a KL keeps the start's share of the reward and misses the tilted law (Adjoint Matching, arXiv 2409.08861).
MEMORYLESS = {"flow": math.sqrt(2.0), "diffusion": 1.0}


def lab_config(method: str, family: str, seed: int = 0, beta: float = 1.0, **settings: Any) -> RunConfig:
    """Return the laboratory's settings of a row: the same rollouts and optimiser for all, one β.

    β multiplies the KL of a step whatever a row's own scale, clips are wide and there is one update a
    rollout, so that what is left is the row's guidance and weights.
    """
    row = method_of(RunConfig(estimator=method, row=settings.get("row", ())))
    steps = STEPS[family]
    base: dict[str, Any] = {
        "estimator": method,
        "seed": seed,
        "rollout_steps": steps,
        "noise_level": MEMORYLESS[family],
        "prompts_per_update": 1,
        "group_size": 64,
        "advantage": "mean",
        "advantage_clamp": 1000.0,
        "clip_range": 10.0,
        "kl_weight": beta,
        "kl_scale": "transition",
        "gradient_units": "reward",
        "reward_scale": 1.0 if row.strength in ("inverse_kl", "discounted") else 1.0 / beta,
        "roots_per_prompt": 16 if row.order == "first" else 8,
        "branches": _branches(row, steps),
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "micro_batch": 4096,
        "max_grad_norm": 1.0,
    }
    return RunConfig(**(base | dict(SETTINGS.get(method, {})) | settings))


# Where a row's own idea needs another setting than the common one.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "sqdf": {"lookahead_steps": 1, "discount": 1.0},  # the value's gradient at the state itself
    "diffusion_nft": {
        "advantage": "bounded",
        "advantage_clamp": 5.0,
        "kl_weight": 2e-5,
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


def train_row(config: RunConfig, family: str, evaluations: int, beta: float = 1.0) -> Outcome:
    """Train a row until it has spent its network evaluations, and judge it against the law of ``beta``."""
    started, error = time.perf_counter(), ""
    trainer = lab_trainer(config, family)
    try:
        while trainer.policy.evaluations < evaluations:
            trainer.advance()
            left = 1.0 - trainer.policy.evaluations / evaluations
            for group in trainer.optimiser.param_groups:
                group["lr"] = config.learning_rate * max(left, 0.0)
    except FaultError as fault:
        error = str(fault)
    outcome = judge(config.estimator, trainer, family, time.perf_counter() - started, beta)
    return replace(outcome, error=error)


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
