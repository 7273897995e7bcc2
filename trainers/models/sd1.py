"""Stable Diffusion 1 family: ε-prediction UNet, one CLIP encoder, DDIM sampling."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainers.core.schedule import Schedule, diffusion_schedule
from trainers.models.base import Conditions, PipelineModel


class StableDiffusion1Model(PipelineModel):
    """Adapter of ``StableDiffusionPipeline``; output ε̂, time from the scheduler's ᾱ."""

    pipeline_class = "StableDiffusionPipeline"
    network_name = "unet"

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditions:
        """Encode prompts with the pipeline's own encoder; see ``PipelineModel.encode``."""
        embeds, _ = self.pipe.encode_prompt(list(prompts), self.device, 1, False)
        empty, _ = self.pipe.encode_prompt("", self.device, 1, False)
        return Conditions(embeds, None, empty, None)

    def predict(self, network: nn.Module, latents: Tensor, timestep: float, rows: Conditions) -> Tensor:
        """Return ε̂ (B, C, H, W) in the network's precision."""
        times = torch.full((len(latents),), int(timestep), device=latents.device)
        return network(latents.to(network.dtype), times, rows.embeds, return_dict=False)[0]

    def schedule(self, steps: int) -> Schedule:
        """Return ᾱ at the scheduler's timesteps and after the last one."""
        scheduler = copy.deepcopy(self.pipe.scheduler)
        scheduler.set_timesteps(steps)
        final = scheduler.final_alpha_cumprod.reshape(1)
        alphas = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps.long()], final])
        return diffusion_schedule(alphas, scheduler.timesteps)
