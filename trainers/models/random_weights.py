"""Pipelines with random weights: full-size architectures for measuring speed and memory without a download.

``random_pipeline(name)`` returns a ``PipelineModel`` of the real adapter around the real diffusers classes,
without text encoders: ``encode`` makes embeddings from a prompt's own text, equal for equal prompts. All else
(predict, decode, schedule, sample, LoRA) is the code that checkpoints pass through. Pictures are noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from trainers.errors import InputError
from trainers.models.base import PipelineModel
from trainers.models.conditions import Conditions
from trainers.models.memory import EVERYTHING, Footprint
from trainers.models.sizes import FULL, Size
from trainers.models.spec import ModelSpec, checkpoint
from trainers.models.tiny_sizes import TINY
from trainers.registry import nearest
from trainers.seeds import seed_for

PREFIX = "random:"
SIZES: Mapping[str, Size] = MappingProxyType({**FULL, **TINY})


def random_spec(name: str) -> ModelSpec:
    """Return the table entry of an architecture; it has no location.

    Raises:
        InputError: The name is not one of ``SIZES``.
    """
    if name not in SIZES:
        raise InputError(f"Unknown random weights '{name}'. {nearest(name, SIZES)}")
    size = SIZES[name]
    # A tiny size keeps what its family keeps of a row, but its weights take no room.
    measured = {"measured": name} if name in FULL else {"parameters": 1e-3}
    return checkpoint(
        f"{PREFIX}{name}", "", size.pipeline_class, size.call, summary="Random weights.", **measured
    )


def size_for(name: str, device: str) -> str:
    """Return the name of the architecture to build: on a CPU the tiny one of the same family.

    Raises:
        InputError: The name is not one of ``SIZES``.
    """
    spec = random_spec(name)
    if device != "cpu" or name in TINY:
        return name
    return next(tiny for tiny, size in TINY.items() if size.pipeline_class == spec.pipeline_class)


def random_pipeline(
    name: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    footprint: Footprint = EVERYTHING,
) -> PipelineModel:
    """Return a model with random weights, ready for ``Trainer`` and ``sample``.

    Args:
        name: A key of ``SIZES``: sd15, sdxl, sd35-medium, flux-dev, or a tiny size of any family.
        device: Where it is built and stays; FLUX needs 48 GB there while it is being built.
        dtype: Precision of denoiser, autoencoder and embeddings.
        footprint: Gradient checkpointing, slicing and rows at once, as a memory preset sets them.

    Returns:
        A model whose ``spec.name`` is ``random:NAME``; the same weights for the same name, device and
        precision.

    Raises:
        InputError: The name is not one of ``SIZES``.
    """
    spec = random_spec(name)
    size = SIZES[name]
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed_for(0, name))
        pipe = _pipeline(size, dtype)
    adapter = spec.load()
    kind = type(f"Random{adapter.__name__}", (_RandomText, adapter), {"size": size})
    model = kind(spec, pipe, dict(spec.call))
    model.use_footprint(footprint)
    return model


def build_part(described: tuple[str, Any]) -> Any:
    """Build one part of a pipeline from its class and config."""
    import diffusers

    name, config = described
    kind = getattr(diffusers, name)
    return kind(**config) if name.endswith("Scheduler") else kind(**config).eval()


def _pipeline(size: Size, dtype: torch.dtype) -> Any:
    import diffusers

    kind = getattr(diffusers, size.pipeline_class)
    parts = (build_part(part) for part in (size.network, size.vae))
    network, vae = (part if part.dtype == dtype else part.to(dtype) for part in parts)
    network_name = "unet" if size.network[0].startswith("UNet") else "transformer"
    with torch.device("cpu"):
        parts = {network_name: network, "vae": vae, "scheduler": build_part(size.scheduler)}
    given = {name: None for name in kind._get_signature_types()} | parts
    if "requires_safety_checker" in given:
        given["requires_safety_checker"] = False
    for name in ("force_zeros_for_empty_prompt", "add_watermarker"):
        given.pop(name, None)
    return kind(**given)


class _RandomText:
    """Embeddings made from a prompt's text, in the place of text encoders."""

    size: Size

    def _encode(self, prompts: Sequence[str]) -> Conditions:
        rows = [self._row(prompt) for prompt in [*prompts, ""]]
        embeds = torch.stack([row[0] for row in rows])
        pooled = torch.stack([row[1] for row in rows]) if self.size.pooled else None
        masked = self.pipeline_class in ("SanaPipeline", "PixArtSigmaPipeline", "ZImagePipeline")
        mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=self.device) if masked else None

        def split(part: torch.Tensor | None) -> tuple:
            return (None, None) if part is None else (part[:-1], part[-1:])

        (some, none), (some_pooled, no_pooled), (marks, no_marks) = map(split, (embeds, pooled, mask))
        return Conditions(some, some_pooled, none, no_pooled, marks, no_marks)

    def _row(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator("cpu").manual_seed(seed_for(0, prompt))
        shapes = ((self.size.tokens, self.size.width), (self.size.pooled,))
        dtype = self.network.dtype
        return tuple(torch.randn(shape, generator=generator).to(self.device, dtype) for shape in shapes)
