"""Decode finished latents and score them, in chunks that fit the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainers.core.precision import in_full_precision
from trainers.image_checks import check_decoded
from trainers.loss_scale import power_of_two
from trainers.machine import decoding_batch, differentiable_attention
from trainers.parallel import map_chunks, overlapped
from trainers.phases import phase, running

if TYPE_CHECKING:
    from trainers.estimators.contract import Task


def score(task: Task, latents: Tensor, prompt_index: Tensor) -> Tensor:
    """Return the (B,) rewards of finished latents (B, C, H, W), without gradient."""
    words = prompts_of(task, prompt_index)

    def decode(chunk: Tensor) -> Tensor:
        with phase("decode"):
            return task.policy.model.decode(latents[chunk])

    def judge(chunk: Tensor, images: Tensor) -> Tensor:
        check_decoded(images, latents[chunk])
        with phase("reward"):
            return in_full_precision(task.reward(images, [words[i] for i in chunk.tolist()]))

    chunks = torch.arange(len(latents)).split(pictures_at_once(task))
    if latents.device.type != "cpu" and not running():
        return torch.cat(overlapped(decode, judge, chunks))
    return torch.cat(map_chunks(lambda chunk: judge(chunk, decode(chunk)), chunks, latents.device))


def pictures_at_once(task: Task) -> int:
    """Return how many pictures are decoded at once: as memory and the kind of device want it."""
    model = task.policy.model
    return decoding_batch(model.device, min(task.policy.micro_batch, model.footprint.decode_batch))


def score_with_gradient(task: Task, latents: Tensor, prompt_index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (B,) rewards and their gradients (B, C, H, W) with respect to finished latents."""
    rewards, gradients = [], []
    for chunk in torch.arange(len(latents)).split(pictures_at_once(task)):
        leaf = latents[chunk].detach().requires_grad_(True)
        with differentiable_attention(leaf.device):
            values, gradient = reward_gradient(task, leaf, leaf, prompt_index[chunk])
        rewards.append(in_full_precision(values.detach()))
        gradients.append(in_full_precision(gradient))
    return torch.cat(rewards), torch.cat(gradients)


def reward_gradient(task: Task, clean: Tensor, leaf: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (B,) rewards of finished latents and their gradient, shaped like ``leaf``."""
    with phase("decode"):
        images = task.policy.model.decode(clean)
    check_decoded(images, clean)
    with phase("reward"):
        values = task.reward(images, prompts_of(task, index))
    with phase("reward_gradient"):
        (gradient,) = torch.autograd.grad(values.sum(), clean)
        return values, gradient if clean is leaf else _through_network(clean, gradient, leaf)


def _through_network(clean: Tensor, gradient: Tensor, leaf: Tensor) -> Tensor:
    """Return the gradient with respect to ``leaf``, scaled on its way row by row, in case that is float16."""
    scale = power_of_two(gradient.abs().flatten(1).amax(1)).to(gradient).view(-1, 1, 1, 1)
    (passed,) = torch.autograd.grad(clean, leaf, gradient * scale)
    return passed / scale.to(passed)


def prompts_of(task: Task, index: Tensor) -> Sequence[str]:
    """Return the prompts that ``index`` (B,) names."""
    return [task.prompts[i] for i in index.tolist()]
