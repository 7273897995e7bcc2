"""Decode finished latents and score them, in chunks that fit the machine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.estimators.contract import Task
from trainers.machine import decoding_batch, differentiable_attention
from trainers.parallel import map_chunks


def score(task: Task, latents: Tensor, prompt_index: Tensor) -> Tensor:
    """Return the (B,) rewards of finished latents (B, C, H, W), without gradient."""

    def run(chunk: Tensor) -> Tensor:
        images = task.policy.model.decode(latents[chunk])
        return task.reward(images, prompts_of(task, prompt_index[chunk])).float()

    chunks = torch.arange(len(latents)).split(decoding_batch(latents.device, task.policy.micro_batch))
    return torch.cat(map_chunks(run, chunks, latents.device))


def score_with_gradient(task: Task, latents: Tensor, prompt_index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (B,) rewards and their gradients (B, C, H, W) with respect to finished latents."""
    rewards, gradients = [], []
    for chunk in torch.arange(len(latents)).split(decoding_batch(latents.device, task.policy.micro_batch)):
        leaf = latents[chunk].detach().requires_grad_(True)
        with differentiable_attention(leaf.device):
            images = task.policy.model.decode(leaf)
            values = task.reward(images, prompts_of(task, prompt_index[chunk]))
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
        rewards.append(values.detach().float())
        gradients.append(in_full_precision(gradient))
    return torch.cat(rewards), torch.cat(gradients)


def in_full_precision(values: Tensor) -> Tensor:
    """Return values in float32, or in float64 if they have it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def prompts_of(task: Task, index: Tensor) -> Sequence[str]:
    """Return the prompts that ``index`` (B,) names."""
    return [task.prompts[i] for i in index.tolist()]
