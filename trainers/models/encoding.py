"""Prompts encoded once, encoders off the device: what large text encoders need on small GPUs.

The encoders stay in main memory and visit the device: what is sent there is thrown away afterwards and not
sent back. Where they do not fit beside the denoiser, it leaves for that time, and with it the autoencoder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from trainers.models.conditions import Conditions, joined

CPU = torch.device("cpu")
TOGETHER = 16  # prompts that pass through the encoders at once
TOGETHER_IN_TURN = 32  # where every such pass sends the encoders anew


def encoder_names(pipe: Any) -> list[str]:
    """Return the names of a pipeline's text encoders."""
    return [
        name for name, part in pipe.components.items() if part is not None and name.startswith("text_encoder")
    ]


class PromptStore:
    """The encoded prompts of a run, in main memory."""

    def __init__(
        self,
        pipe: Any,
        device: torch.device,
        encode: Callable[[Sequence[str]], Conditions],
        encoding: str = "beside",
    ):
        """Move the encoders off the device.

        Args:
            pipe: The pipeline whose encoders are borrowed.
            device: Where encoding happens and selected rows go.
            encode: The family's own encoding.
            encoding: What else is on the device meanwhile; see ``Footprint``.
        """
        self._pipe = pipe
        self._device = device
        self._encode = encode
        self._encoding = encoding
        self._rows: dict[str, Conditions] = {}
        for encoder in self._encoders():
            encoder.to(CPU)

    @torch.inference_mode(False)  # or what is encoded for a drawing could not be trained with
    def add(self, prompts: Sequence[str]) -> None:
        """Encode the prompts that are not there yet."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._rows]
        if not missing:
            return
        together = TOGETHER_IN_TURN if self._encoding == "in turn" else TOGETHER
        with self._room(), self._visit():
            for start in range(0, len(missing), together):
                chunk = missing[start : start + together]
                found = self._encode(chunk).to(CPU)
                for number, prompt in enumerate(chunk):
                    self._rows[prompt] = found.select(slice(number, number + 1))

    def get(self, prompts: Sequence[str]) -> Conditions:
        """Return the conditions of prompts; selected rows go to the device."""
        self.add(prompts)
        return replace(joined([self._rows[prompt] for prompt in prompts]), home=self._device)

    def _encoders(self) -> list[nn.Module]:
        return [getattr(self._pipe, name) for name in encoder_names(self._pipe)]

    @contextlib.contextmanager
    def _room(self):
        """Take everything but encoders off the device where they would not fit beside it."""
        encoders = self._encoders()
        parts = [part for part in self._pipe.components.values() if isinstance(part, nn.Module)]
        others = [part for part in parts if part not in encoders] if encoders else []
        if self._encoding == "beside":
            others = []
        try:
            for part in others:
                part.to(CPU)
            self._release()
            yield
        finally:
            for part in others:
                part.to(self._device)

    @contextlib.contextmanager
    def _visit(self):
        """Let the encoders be on the device, all at once or each while it works."""
        guests = [_Guest(encoder, self._device) for encoder in self._encoders()]
        hooks = []
        try:
            for guest in guests:
                if self._encoding == "in turn":
                    hooks += guest.each_pass()
                else:
                    guest.come()
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for guest in guests:
                guest.go()
            self._release()

    def _release(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class _Guest:
    """An encoder whose weights are on the device between ``come`` and ``go``, and in main memory always."""

    def __init__(self, encoder: nn.Module, device: torch.device):
        self._encoder = encoder
        self._device = device
        self._places = [
            (places, name, home)
            for module in encoder.modules()
            for places in (module._parameters, module._buffers)
            for name, home in places.items()
            if home is not None
        ]

    def come(self, *_: Any) -> None:
        sent: dict[int, torch.Tensor] = {}  # weights that share a tensor go on sharing it
        for places, name, home in self._places:
            if id(home) not in sent:
                there = home.detach().to(self._device)
                sent[id(home)] = nn.Parameter(there, False) if isinstance(home, nn.Parameter) else there
            places[name] = sent[id(home)]

    def go(self, *_: Any) -> None:
        for places, name, home in self._places:
            places[name] = home

    def each_pass(self) -> list[Any]:
        """Come before every pass and go after it, until the returned hooks are removed."""
        return [
            self._encoder.register_forward_pre_hook(self.come),
            self._encoder.register_forward_hook(self.go),
        ]
