"""Stable Diffusion 3 family: rectified flow, joint text-image transformer, CLIP encoders, optional T5."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainers.core.schedule import Schedule, flow_schedule
from trainers.models.base import Conditions, PipelineModel


class StableDiffusion3Model(PipelineModel):
    """Adapter of ``StableDiffusion3Pipeline``; output v = ε − x0, time t = σ of the Euler scheduler."""

    pipeline_class = "StableDiffusion3Pipeline"
    network_name = "transformer"

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditions:
        """Encode prompts with the pipeline's own encoders; see ``PipelineModel.encode``."""
        lengths = {k: v for k, v in self.call.items() if k == "max_sequence_length"}
        texts = list(prompts)
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            texts, texts, texts, do_classifier_free_guidance=False, **lengths
        )
        empty, _, empty_pooled, _ = self.pipe.encode_prompt(
            "", "", "", do_classifier_free_guidance=False, **lengths
        )
        return Conditions(embeds, pooled, empty, empty_pooled)

    def predict(self, network: nn.Module, latents: Tensor, timestep: float, rows: Conditions) -> Tensor:
        """Return v (B, C, H, W) in the network's precision."""
        return network(
            hidden_states=latents.to(network.dtype),
            timestep=torch.full((len(latents),), timestep, device=latents.device),
            encoder_hidden_states=rows.embeds,
            pooled_projections=rows.pooled,
            return_dict=False,
        )[0]

    def schedule(self, steps: int) -> Schedule:
        """Return the Euler scheduler's σ, shift included."""
        scheduler = copy.deepcopy(self.pipe.scheduler)
        scheduler.set_timesteps(steps)
        return flow_schedule(scheduler.sigmas, scheduler.timesteps)
