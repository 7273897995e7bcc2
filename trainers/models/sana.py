"""Sana: rectified flow, transformer with linear attention over 32-fold compressed latents, Gemma encoder.

The prompt is wrapped in the instruction that the pipeline's call uses by default, so a rollout is conditioned
on what a user's call is conditioned on.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainers.core.schedule import Schedule
from trainers.models.base import Conditions, PipelineModel
from trainers.models.levels import flow_levels, row_times


class SanaModel(PipelineModel):
    """Adapter of ``SanaPipeline``; output v = ε − x0, time t = σ of the scheduler's flow levels."""

    pipeline_class = "SanaPipeline"
    network_name = "transformer"

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> Conditions:
        normal = inspect.signature(type(self.pipe).__call__).parameters
        instruction = self.call.get("complex_human_instruction", normal["complex_human_instruction"].default)
        embeds, mask, negative, negative_mask = self.pipe.encode_prompt(
            list(prompts),
            True,
            device=self.device,
            max_sequence_length=self.tokens_read,
            complex_human_instruction=instruction,
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
        """Return v (B, C, H, W) in the network's precision."""
        times = row_times(timestep, latents)
        return network(
            latents.to(network.dtype),
            encoder_hidden_states=rows.embeds,
            encoder_attention_mask=rows.mask,
            timestep=times * network.config.timestep_scale,
            return_dict=False,
        )[0]

    def schedule(self, steps: int) -> Schedule:
        """Return the scheduler's flow levels, static shift included."""
        return flow_levels(self.pipe.scheduler, steps)
