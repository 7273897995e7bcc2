"""Prompts encoded once, encoders off the device: what large text encoders need on small GPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from trainers.models.conditions import Conditions, joined

TOGETHER = 16  # prompts that pass through the encoders at once


def encoder_names(pipe: Any) -> list[str]:
    """Return the names of a pipeline's text encoders."""
    return [
        name for name, part in pipe.components.items() if part is not None and name.startswith("text_encoder")
    ]


class PromptStore:
    """The encoded prompts of a run, in main memory."""

    def __init__(self, pipe: Any, device: torch.device, encode: Callable[[Sequence[str]], Conditions]):
        """Move the encoders off the device.

        Args:
            pipe: The pipeline whose encoders are borrowed.
            device: Where encoding happens and selected rows go.
            encode: The family's own encoding.
        """
        self._pipe = pipe
        self._device = device
        self._encode = encode
        self._rows: dict[str, Conditions] = {}
        self._move(torch.device("cpu"))

    def add(self, prompts: Sequence[str]) -> None:
        """Encode the prompts that are not there yet."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._rows]
        if not missing:
            return
        with self._encoders():
            for start in range(0, len(missing), TOGETHER):
                chunk = missing[start : start + TOGETHER]
                found = self._encode(chunk).to(torch.device("cpu"))
                for number, prompt in enumerate(chunk):
                    self._rows[prompt] = found.select(slice(number, number + 1))

    def get(self, prompts: Sequence[str]) -> Conditions:
        """Return the conditions of prompts; selected rows go to the device."""
        self.add(prompts)
        return replace(joined([self._rows[prompt] for prompt in prompts]), home=self._device)

    @contextlib.contextmanager
    def _encoders(self):
        self._move(self._device)
        try:
            yield
        finally:
            self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        for name in encoder_names(self._pipe):
            getattr(self._pipe, name).to(device)
        if self._device.type == "cuda" and device.type == "cpu":
            torch.cuda.empty_cache()
