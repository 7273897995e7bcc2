"""PixArt-Σ: noise-predicting transformer, T5 encoder.

diffusers has no LoRA loader for this pipeline, so the adapter is also written as PEFT's own folder, which
``peft.PeftModel.from_pretrained(pipe.transformer, folder)`` reads. The network's predicted variance is
dropped, as the pipeline drops it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from diffusers.loaders import PeftAdapterMixin
from safetensors.torch import save_file
from torch import Tensor, nn

from trainers.adapter_file import PEFT_CONFIG, PEFT_WEIGHTS, WEIGHTS
from trainers.core.schedule import Schedule
from trainers.models.base import Conditions, PipelineModel
from trainers.models.levels import diffusion_levels, noise_from, row_times


class _AdaptableTransformer(PixArtTransformer2DModel, PeftAdapterMixin):
    """The pipeline's transformer with the adapter verbs that diffusers gives the other families."""


class PixArtSigmaModel(PipelineModel):
    """Adapter of ``PixArtSigmaPipeline``; output ε̂, time from the scheduler's ᾱ."""

    pipeline_class = "PixArtSigmaPipeline"
    network_name = "transformer"

    def __init__(self, spec, pipe, call):
        """Wrap a pipeline; see ``PipelineModel``."""
        super().__init__(spec, pipe, call)
        self.network.__class__ = _AdaptableTransformer  # same weights and forward, more methods

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> Conditions:
        embeds, mask, negative, negative_mask = self.pipe.encode_prompt(
            list(prompts),
            True,
            device=self.device,
            clean_caption=bool(self.call.get("clean_caption", True)),
            max_sequence_length=self.tokens_read,
        )
        return Conditions(embeds, None, negative[:1], None, mask, negative_mask[:1])

    def call_arguments(self, rows: Conditions) -> dict[str, Any]:
        """Return what a pipeline call takes in place of prompts; see ``PipelineModel``."""
        return {
            "prompt_embeds": rows.embeds,
            "prompt_attention_mask": rows.mask,
            "negative_prompt": None,
            "negative_prompt_embeds": rows.negative_embeds.expand_as(rows.embeds),
            "negative_prompt_attention_mask": rows.negative_mask.expand_as(rows.mask),
        }

    def predict(
        self, network: nn.Module, latents: Tensor, timestep: float | Tensor, rows: Conditions
    ) -> Tensor:
        """Return ε̂ (B, C, H, W)."""
        output = network(
            latents.to(network.dtype),
            encoder_hidden_states=rows.embeds,
            encoder_attention_mask=rows.mask,
            timestep=row_times(timestep, latents, torch.int64),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        if network.config.out_channels == 2 * latents.shape[1]:
            output = output.chunk(2, dim=1)[0]
        return noise_from(self.pipe.scheduler, timestep, latents, output)

    def schedule(self, steps: int) -> Schedule:
        """Return ᾱ at the scheduler's timesteps and after the last one."""
        return diffusion_levels(self.pipe.scheduler, steps)

    def save_lora(self, folder: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Write the LoRA for this project and for PEFT; see ``PipelineModel``."""
        described = {"lora_adapter_metadata": json.dumps(_prefixed("transformer", metadata), default=str)}
        save_file(_prefixed("transformer", tensors), folder / WEIGHTS, described | {"format": "pt"})
        save_file(_prefixed("base_model.model", tensors), folder / PEFT_WEIGHTS, {"format": "pt"})
        config = json.dumps(metadata, default=str, indent=2, sort_keys=True)
        (folder / PEFT_CONFIG).write_text(config + "\n", encoding="utf-8")

    def load_lora(self, folder: Path) -> None:
        """Load a saved LoRA into the network; see ``PipelineModel``."""
        self.network.load_lora_adapter(folder, prefix="transformer", weight_name=WEIGHTS)


def _prefixed(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}
