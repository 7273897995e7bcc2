"""What every estimator begins with: the rollout's prompts, its initial noise and the steps it trains."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.estimators.contract import Task
from trainers.models.conditions import Chosen
from trainers.samplers.rollout import NetworkOutput


def start_rows(task: Task, samples_per_prompt: int) -> tuple[Tensor, NetworkOutput]:
    """Return each sample's prompt index (N,) and the policy's sampling network bound to its conditions."""
    index = task.chosen.to(task.policy.model.device).repeat_interleave(samples_per_prompt)
    return index, bound_network(task, index)


def bound_network(task: Task, index: Tensor) -> NetworkOutput:
    """Return the policy's sampling network for samples whose prompts are ``index`` (N,)."""

    def network(latents: Tensor, step: int, samples: Tensor) -> Tensor:
        rows = Chosen(task.conditions, index[samples])
        return task.policy.sample_output(latents, task.schedule, step, rows)

    return network


def initial_latents(task: Task, count: int) -> Tensor:
    """Draw (N, C, H, W) float32 initial noise."""
    shape = (count, *task.policy.model.latent_shape)
    device = task.policy.model.device
    return task.ranks.share.normal(shape, task.generators["latents"], device=device)


def training_steps(task: Task, fraction: float, usable: int) -> list[int]:
    """Choose which of the first ``usable`` steps are trained, in order."""
    count = max(1, round(fraction * usable))
    chosen = torch.randperm(usable, generator=task.generators["steps"])[:count]
    return sorted(chosen.tolist())
