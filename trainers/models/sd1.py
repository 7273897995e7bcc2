"""Stable Diffusion 1 and 2: a UNet that predicts noise or velocity, one CLIP encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainers.core.schedule import Schedule
from trainers.models.base import Conditions, PipelineModel
from trainers.models.levels import diffusion_levels, noise_from, row_times


class StableDiffusion1Model(PipelineModel):
    """Adapter of ``StableDiffusionPipeline``; output ε̂, time from the scheduler's ᾱ."""

    pipeline_class = "StableDiffusionPipeline"
    network_name = "unet"

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> Conditions:
        embeds, _ = self.pipe.encode_prompt(list(prompts), self.device, 1, False)
        empty, _ = self.pipe.encode_prompt("", self.device, 1, False)
        return Conditions(embeds, None, empty, None)

    def call_arguments(self, rows: Conditions) -> dict[str, Any]:
        """Return what a pipeline call takes in place of prompts; see ``PipelineModel``."""
        return {
            "prompt_embeds": rows.embeds,
            "negative_prompt_embeds": rows.negative_embeds.expand_as(rows.embeds),
        }

    def predict(
        self, network: nn.Module, latents: Tensor, timestep: float | Tensor, rows: Conditions
    ) -> Tensor:
        """Return ε̂ (B, C, H, W)."""
        times = row_times(timestep, latents, torch.int64)
        output = network(latents.to(network.dtype), times, rows.embeds, return_dict=False)[0]
        return noise_from(self.pipe.scheduler, timestep, latents, output)

    def schedule(self, steps: int) -> Schedule:
        """Return ᾱ at the scheduler's timesteps and after the last one."""
        return diffusion_levels(self.pipe.scheduler, steps)
