"""The reward's gradient at a noisy state, through an m-step deterministic lookahead to its clean estimate.

One step is the network's own clean estimate x̂0; more steps follow the sampler's ODE and see a sharper
picture at the price of m network evaluations forwards and backwards. Source: SQDF, arXiv 2512.04559.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainers.core.parameterization import predict_clean
from trainers.core.precision import in_full_precision
from trainers.core.transition import mean
from trainers.estimators.scoring import reward_gradient
from trainers.machine import differentiable_attention
from trainers.samplers.kernels import ode

if TYPE_CHECKING:  # the contract brings the LoRA library, which the laboratory does not need
    from trainers.estimators.contract import Task


def lookahead_levels(level: int, steps: int, count: int) -> list[int]:
    """Return the noise levels at which a lookahead of ``count`` steps evaluates the network.

    Args:
        level: Index of the state in [0, T]; T is clean and needs no evaluation.
        steps: T.
        count: m ≥ 1; at most the T − level steps that are left.
    """
    count = min(count, steps - level)
    return [level + round(i * (steps - level) / count) for i in range(count)]


def gradient_at(
    task: Task, latents: Tensor, levels: Sequence[int], index: Tensor, base: bool = False
) -> Tensor:
    """Return ∇_x r(D(x̂0(x))) (B, C, H, W), the network's Jacobian included.

    Args:
        task: The rollout's assignment.
        latents: (B, C, H, W) states at the first of ``levels``; finished latents when there are none.
        levels: Levels at which the network is evaluated; the last evaluation gives x̂0.
        index: (B,) prompt of each state.
        base: Whether the base model reads x̂0, and not the trained network.
    """
    gradients = []
    rows = min(task.policy.micro_batch, task.policy.model.footprint.decode_batch)
    for chunk in torch.arange(len(latents)).split(rows):
        leaf = latents[chunk].detach().requires_grad_(True)
        with differentiable_attention(leaf.device):
            clean = _clean(task, leaf, levels, index[chunk], base)
            _, gradient = reward_gradient(task, clean, leaf, index[chunk])
        gradients.append(in_full_precision(gradient))
    return torch.cat(gradients)


def _clean(task: Task, latents: Tensor, levels: Sequence[int], index: Tensor, base: bool) -> Tensor:
    if not levels:
        return latents
    rows = task.conditions.select(index)
    network = task.policy.base_output if base else task.policy.output
    for level, following in pairwise(levels):
        output = network(latents, task.schedule, level, rows)
        latents = mean(ode(task.schedule.visiting([level, following]), 0), latents, output)
    output = network(latents, task.schedule, levels[-1], rows)
    return predict_clean(task.schedule, levels[-1], latents, output)
