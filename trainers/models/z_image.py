"""Z-Image: rectified flow, single-stream transformer over picture and text tokens, Qwen3 encoder.

The family of 2025–26 among those here. It was preferred to Qwen-Image because its 6 B transformer trains on
one 24–48 GB GPU where Qwen-Image's 20 B needs 80 GB, its licence is Apache-2.0 without a gate, and diffusers
0.42 has its pipeline, its LoRA loader and its gradient checkpointing.

Three conventions differ from the engine's and are converted here: time runs from 0 (noise) to 1 (clean), the
network returns −v, and the call's guidance scale is the engine's minus one (pos + g·(pos − neg)). Prompts
keep their own lengths, so the network takes lists; telling the lengths costs one look at the mask per pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from trainers.core.schedule import Schedule
from trainers.models.base import Conditions, PipelineModel
from trainers.models.levels import dynamic_shift, even_sigmas, flow_levels, row_times


class ZImageModel(PipelineModel):
    """Adapter of ``ZImagePipeline``; output v = ε − x0, time t = σ of the Euler scheduler."""

    pipeline_class = "ZImagePipeline"
    network_name = "transformer"

    @property
    def guidance_scale(self) -> float:
        """Classifier-free guidance of a normal call in the engine's convention; 1 means none."""
        return 1.0 + float(self.call.get("guidance_scale", 0.0))

    def guidance_arguments(self, scale: float) -> dict[str, Any]:
        """Return the call's arguments for a guidance scale in the engine's convention."""
        return {"guidance_scale": max(0.0, scale - 1.0)}

    @property
    def latent_channels(self) -> int:
        """Channels of latents."""
        return self.network.in_channels

    def default_size(self) -> tuple[int, int]:
        """Return height and width in pixels of what a call without a size draws."""
        return 1024, 1024

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> Conditions:
        tokens = self.tokens_read
        found, empty = self.pipe.encode_prompt(
            list(prompts), self.device, True, [""] * len(prompts), max_sequence_length=tokens
        )
        rows = [*found, empty[0]]
        embeds = pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=embeds.device)
        mask = torch.arange(embeds.shape[1], device=embeds.device) < lengths.unsqueeze(1)
        return Conditions(embeds[:-1], None, embeds[-1:], None, mask[:-1], mask[-1:])

    def call_arguments(self, rows: Conditions) -> dict[str, Any]:
        """Return what a pipeline call takes in place of prompts; see ``PipelineModel``."""
        empty = _lists(rows.negative_embeds, rows.negative_mask)
        return {
            "prompt_embeds": _lists(rows.embeds, rows.mask),
            "negative_prompt_embeds": empty * len(rows.embeds),
        }

    def predict(
        self, network: nn.Module, latents: Tensor, timestep: float | Tensor, rows: Conditions
    ) -> Tensor:
        """Return v (B, C, H, W) in the network's precision."""
        times = (1000 - row_times(timestep, latents)) / 1000
        pictures = list(latents.to(network.dtype).unsqueeze(2).unbind(0))
        output = network(pictures, times, _lists(rows.embeds, rows.mask), return_dict=False)[0]
        return -torch.stack(output).squeeze(2)

    def schedule(self, steps: int) -> Schedule:
        """Return the Euler scheduler's σ, shift included."""
        _, height, width = self.latent_shape
        shift = dynamic_shift(self.pipe.scheduler, (height // 2) * (width // 2))
        return flow_levels(self.pipe.scheduler, steps, even_sigmas(steps), shift)


def _lists(embeds: Tensor, mask: Tensor) -> list[Tensor]:
    """Return each row's own tokens (L_i, D)."""
    lengths = mask.sum(1).tolist()
    return [row[:length] for row, length in zip(embeds, lengths, strict=True)]
