"""Caption fit as the tiny CLIP of this repository sees it. Differentiable through the picture.

Reads the folder `tiny-clip` of the assets (a plain transformers `CLIPModel`, frozen here, in float32).
Leaves out the processor class: resizing and normalising are done on tensors so that gradients pass.
"""

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from trainers.assets import asset_root
from trainers.errors import FaultError
from trainers.rewards.contract import Reward


class TinyClip(Reward):
    """Cosine similarity of picture and caption, r = ⟨f(x)/‖f(x)‖, g(c)/‖g(c)‖⟩.

    Not multiplied by anything (the logit scale of training is left out), so values lie in [-1, 1].

    Args:
        folder: a saved `CLIPModel` with its processor, as transformers 4 or 5 writes it.
        device: where the network runs; pictures may be elsewhere.

    Raises:
        FaultError: the folder is missing or damaged.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021;
    as a score of pictures, Hessel et al., CLIPScore, 2021.
    """

    def __init__(self, folder: Path, device: str = "cpu"):
        self.model, self.tokenizer, (mean, std) = _read(folder)
        self.model.to(device).eval().requires_grad_(False)
        self.size = self.model.config.vision_config.image_size
        self.mean = torch.tensor(mean, device=device)[:, None, None]
        self.std = torch.tensor(std, device=device)[:, None, None]
        self._lock = threading.Lock()
        self._captions: dict[str, Tensor] = {}  # a run has few distinct prompts, so nothing is evicted

    def __call__(self, images, prompts, metadata=None):
        picture, caption = self.features(images), self.caption_features(prompts)
        return (picture * caption).sum(1).to(images.device)

    def features(self, images: Tensor) -> Tensor:
        """Embed pictures, differentiably.

        Args:
            images: (B, 3, H, W) in [0, 1]; other sizes than the model's are resampled as its processor does.

        Returns:
            (B, D) float32 of unit length, on the device of the network.
        """
        images = images.to(self.mean)
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        pooled = self.model.vision_model(pixel_values=(images - self.mean) / self.std).pooler_output
        return F.normalize(self.model.visual_projection(pooled), dim=1)

    @torch.no_grad()
    def caption_features(self, prompts: Sequence[str]) -> Tensor:
        """Embed captions, (B, D) float32 of unit length; each distinct one is computed once."""
        with self._lock:  # tokenizers keep their padding between calls, so two must not overlap
            self._remember([prompt for prompt in dict.fromkeys(prompts) if prompt not in self._captions])
        return torch.stack([self._captions[prompt] for prompt in prompts])

    def _remember(self, new: list[str]) -> None:
        if new:
            tokens = self.tokenizer(new, padding=True, truncation=True, return_tensors="pt").to(
                self.mean.device
            )
            pooled = self.model.text_model(**tokens).pooler_output
            self._captions.update(
                zip(new, F.normalize(self.model.text_projection(pooled), dim=1), strict=True)
            )


def _read(folder: Path):
    if not folder.is_dir():
        raise FaultError(f"The folder '{folder}' is missing; the reward 'tiny_clip' needs the model in it.")
    try:
        model, report = CLIPModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        settings = _processor_settings(folder)
        statistics = settings["image_mean"], settings["image_std"]
    except Exception as error:  # each library has its own exceptions for an unreadable file
        raise FaultError(f"The folder '{folder}' is damaged and cannot be loaded: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise FaultError(f"The folder '{folder}' is damaged: its weights lack '{missing[0]}'.")
    return model, tokenizer, statistics


def _processor_settings(folder: Path) -> dict:
    """Read the image processor's settings; transformers 5 nests them in the processor's file."""
    nested = folder / "processor_config.json"
    if nested.exists():
        return json.loads(nested.read_text())["image_processor"]
    return json.loads((folder / "preprocessor_config.json").read_text())


def load(device: str = "cpu") -> TinyClip:
    """Return the reward with the shipped model."""
    return TinyClip(asset_root() / "tiny-clip", device)
