"""Runs a person's own reward function: imports its file and checks what it returns."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from trainers.errors import InputError
from trainers.rewards.contract import Reward
from trainers.rewards.own import own_problems, own_spec


class OwnFunction(Reward):
    """r = function(pictures, prompts).

    Args:
        function: gets (B, 3, H, W) in [0, 1] and B prompts, returns B numbers as a tensor, array or list.
        differentiable: whether its gradient is kept.
    """

    def __init__(self, function: Callable, differentiable: bool):
        self.function = function
        self.differentiable = differentiable

    def __call__(self, images, prompts, metadata=None):
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            values = self.function(images, list(prompts))
        values = values if isinstance(values, Tensor) else torch.as_tensor(values)
        if values.shape != (len(images),):
            raise ValueError(
                f"it returned values of shape {tuple(values.shape)} for {len(images)} pictures; one number "
                "for each is needed."
            )
        asked = self.differentiable and torch.is_grad_enabled() and images.requires_grad
        if asked and not values.requires_grad:
            # In a mixture the others' gradient alone would silently be that of another reward.
            raise ValueError(
                "it is declared differentiable, but its values do not depend on the pictures in a way that "
                "gradients can follow; return a tensor that is not detached, or leave the declaration out."
            )
        return values.to(images.device, torch.float32)


def load_function(file: Path, name: str) -> OwnFunction:
    """Import a file and return the reward of one of its functions.

    Raises:
        InputError: it is refused here, or the file or function is not there, or importing it fails.
    """
    text = f"{file}:{name}"
    if found := own_problems(text):
        raise InputError(*found)
    spec = importlib.util.spec_from_file_location(f"own_reward_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        function = getattr(module, name)
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        raise InputError(f"Importing {file} failed with {type(error).__name__}: {words}") from error
    return OwnFunction(function, own_spec(text).differentiable)
