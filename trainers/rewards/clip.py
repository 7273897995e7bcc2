"""What rewards that look through a CLIP share: the two towers, frozen and in float32, from a folder.

Captions are embedded once each, pictures differentiably. How pictures become pixel values is an argument,
because published processors differ. Leaves out the logit scale, which only some rewards use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from trainers.errors import FaultError
from trainers.rewards.contract import Reward


class ClipTowers:
    """A CLIP that embeds pictures and captions.

    Args:
        model: the network; it is frozen and put into evaluation mode.
        tokenizer: of its captions.
        pixels: maps pictures (B, 3, H, W) in [0, 1] to pixel values (B, 3, S, S), differentiably.
        device: where the network runs; pictures may be elsewhere.
    """

    def __init__(
        self, model: CLIPModel, tokenizer: CLIPTokenizer, pixels: Callable[[Tensor], Tensor], device: str
    ):
        self.model = model.to(device).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.pixels = pixels
        self._lock = threading.Lock()
        self._captions: dict[str, Tensor] = {}  # a run has few distinct prompts, so nothing is evicted

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.model.logit_scale.device

    def pictures(self, images: Tensor) -> Tensor:
        """Embed pictures.

        Args:
            images: (B, 3, H, W) in [0, 1].

        Returns:
            (B, D) of unit length, on the device of the network, with gradient if the pictures have one.
        """
        pixels = self.pixels(images.to(self.device, self.model.logit_scale.dtype))
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.model.visual_projection(pooled), dim=1)

    @torch.no_grad()
    def captions(self, prompts: Sequence[str]) -> Tensor:
        """Embed captions, (B, D) of unit length; each distinct one is computed once."""
        with self._lock:  # tokenizers keep their padding between calls, so two must not overlap
            self._remember([prompt for prompt in dict.fromkeys(prompts) if prompt not in self._captions])
        return torch.stack([self._captions[prompt] for prompt in prompts])

    def _remember(self, new: list[str]) -> None:
        if new:
            limit = self.model.config.text_config.max_position_embeddings
            tokens = self.tokenizer(
                new, padding=True, truncation=True, max_length=limit, return_tensors="pt"
            ).to(self.device)
            pooled = self.model.text_model(**tokens).pooler_output
            embedded = F.normalize(self.model.text_projection(pooled), dim=1)
            self._captions.update(zip(new, embedded, strict=True))


class ClipFit(Reward):
    """Fit of picture and caption, r = s·⟨f(x)/‖f(x)‖, g(c)/‖g(c)‖⟩.

    Args:
        towers: f and g.
        scale: s; 1 gives the cosine.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
    """

    def __init__(self, towers: ClipTowers, scale: float = 1.0):
        self.towers = towers
        self.scale = scale

    def __call__(self, images, prompts, metadata=None):
        fit = (self.towers.pictures(images) * self.towers.captions(prompts)).sum(1)
        return (self.scale * fit).to(images.device)


def read_model(folder: Path, weights: Mapping[str, Tensor] | None = None, name: str = "model") -> CLIPModel:
    """Return a CLIP in float32.

    Args:
        folder: a saved ``CLIPModel``, or only its ``config.json`` where ``weights`` are given.
        weights: parameters by their name in transformers.
        name: what needs it, for messages.

    Raises:
        FaultError: a file is damaged or a parameter is missing.
    """
    try:
        if weights is None:
            model, report = CLIPModel.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
            missing = sorted(report["missing_keys"])
        else:
            model = CLIPModel(CLIPConfig.from_pretrained(folder, local_files_only=True)).float()
            missing = model.load_state_dict(dict(weights), strict=False).missing_keys
    except Exception as error:  # each library has its own exceptions for an unreadable file
        raise damaged(folder, error) from error
    if missing:
        raise FaultError(f"The folder '{folder}' is damaged: its weights lack '{missing[0]}' of {name}.")
    return model


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """Return the tokenizer of a folder; errors as in ``read_model``."""
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> FaultError:
    """Return the error that says that a folder cannot be read."""
    words = " ".join(str(error).split())[:300]
    return FaultError(f"The folder '{folder}' is damaged and cannot be loaded: {words}")
