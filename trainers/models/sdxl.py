"""Stable Diffusion XL: a UNet conditioned on two CLIP encoders, a pooled embedding and picture sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from trainers.models.base import Conditions
from trainers.models.levels import noise_from, row_times
from trainers.models.sd1 import StableDiffusion1Model


class StableDiffusionXLModel(StableDiffusion1Model):
    """Adapter of ``StableDiffusionXLPipeline``; output ε̂, time from the scheduler's ᾱ.

    The sizes it is told (original, crop, target) are those of a normal call: no crop, the picture's own.
    """

    pipeline_class = "StableDiffusionXLPipeline"

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> Conditions:
        # Without a negative prompt the pipeline may use zeros in its place, so the pipeline is asked.
        embeds, negative, pooled, negative_pooled = self.pipe.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=True
        )
        return Conditions(embeds, pooled, negative[:1], negative_pooled[:1])

    def call_arguments(self, rows: Conditions) -> dict[str, Any]:
        """Return what a pipeline call takes in place of prompts; see ``PipelineModel``."""
        return super().call_arguments(rows) | {
            "pooled_prompt_embeds": rows.pooled,
            "negative_pooled_prompt_embeds": rows.negative_pooled.expand_as(rows.pooled),
        }

    def predict(
        self, network: nn.Module, latents: Tensor, timestep: float | Tensor, rows: Conditions
    ) -> Tensor:
        """Return ε̂ (B, C, H, W)."""
        times = row_times(timestep, latents, torch.int64)
        height, width = self.picture_size
        sizes = _sizes(height, width, latents.device, rows.embeds.dtype)
        output = network(
            latents.to(network.dtype),
            times,
            rows.embeds,
            added_cond_kwargs={
                "text_embeds": rows.pooled,
                "time_ids": sizes.expand(len(latents), -1),
            },
            return_dict=False,
        )[0]
        return noise_from(self.pipe.scheduler, timestep, latents, output)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # or what the first call made could not be used in training
def _sizes(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return original size, crop and target size (6,), sent to the device once and not at every pass."""
    return torch.tensor([height, width, 0, 0, height, width], dtype=dtype, device=device)
