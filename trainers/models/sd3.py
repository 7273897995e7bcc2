"""Stable Diffusion 3 and 3.5: rectified flow, joint text-image transformer, CLIP encoders, optional T5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainers.core.schedule import Schedule
from trainers.models.base import Conditions, PipelineModel
from trainers.models.levels import dynamic_shift, flow_levels, row_times


class StableDiffusion3Model(PipelineModel):
    """Adapter of ``StableDiffusion3Pipeline``; output v = ε − x0, time t = σ of the Euler scheduler."""

    pipeline_class = "StableDiffusion3Pipeline"
    network_name = "transformer"

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> Conditions:
        lengths = {k: v for k, v in self.call.items() if k == "max_sequence_length"}
        texts = list(prompts)
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            texts, texts, texts, device=self.device, do_classifier_free_guidance=False, **lengths
        )
        empty, _, empty_pooled, _ = self.pipe.encode_prompt(
            "", "", "", device=self.device, do_classifier_free_guidance=False, **lengths
        )
        return Conditions(embeds, pooled, empty, empty_pooled)

    def call_arguments(self, rows: Conditions) -> dict[str, Any]:
        """Return what a pipeline call takes in place of prompts; see ``PipelineModel``."""
        return {
            "prompt_embeds": rows.embeds,
            "negative_prompt_embeds": rows.negative_embeds.expand_as(rows.embeds),
            "pooled_prompt_embeds": rows.pooled,
            "negative_pooled_prompt_embeds": rows.negative_pooled.expand_as(rows.pooled),
        }

    def predict(
        self, network: nn.Module, latents: Tensor, timestep: float | Tensor, rows: Conditions
    ) -> Tensor:
        """Return v (B, C, H, W) in the network's precision."""
        return network(
            hidden_states=latents.to(network.dtype),
            timestep=row_times(timestep, latents),
            encoder_hidden_states=rows.embeds,
            pooled_projections=rows.pooled,
            return_dict=False,
        )[0]

    def schedule(self, steps: int) -> Schedule:
        """Return the Euler scheduler's σ, shift included."""
        _, height, width = self.latent_shape
        patch = self.network.config.patch_size
        tokens = (height // patch) * (width // patch)
        return flow_levels(
            self.pipe.scheduler, steps, shift=dynamic_shift(self.pipe.scheduler, tokens, top=1.16)
        )
