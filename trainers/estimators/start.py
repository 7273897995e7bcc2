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


def initial_latents(task: Task, count: int, shared: bool = False) -> Tensor:
    """Draw (N, C, H, W) float32 initial noise.

    Args:
        task: The rollout's assignment.
        count: N, a multiple of the number of prompts.
        shared: Whether all samples of a prompt begin with the same noise (DanceGRPO, BranchGRPO).
    """
    drawn = len(task.chosen) if shared else count
    shape = (drawn, *task.policy.model.latent_shape)
    device = task.policy.model.device
    noise = task.ranks.share.normal(shape, task.generators["latents"], device=device)
    return noise.repeat_interleave(count // drawn, 0) if shared and drawn else noise


def sample_numbers(task: Task, count: int) -> Tensor:
    """Return the numbers (N,) of this process's samples among everybody's."""
    return torch.arange(count, device=task.policy.model.device) + task.ranks.rank * count


def training_steps(task: Task, fraction: float, usable: int) -> list[int]:
    """Choose which of the first ``usable`` steps are trained, in order."""
    count = max(1, round(fraction * usable))
    chosen = torch.randperm(usable, generator=task.generators["steps"])[:count]
    return sorted(chosen.tolist())


def strata(count: int, first: int, last: int, parts: int, generator: torch.Generator) -> Tensor:
    """Draw (N, parts) steps: for each of N samples one of every of ``parts`` equal parts of [first, last)."""
    borders = first + torch.arange(parts + 1) * (last - first) // parts
    low, high = borders[:-1], borders[1:]
    drawn = torch.rand((count, parts), generator=generator)
    return (low + (drawn * (high - low)).floor()).long()
