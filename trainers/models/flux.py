"""FLUX.1: rectified flow, double- and single-stream transformer over packed latents, CLIP and T5.

The dev checkpoint has classifier-free guidance distilled into it: the scale is an input of the network, and
one evaluation a step is enough. The schnell checkpoint has no guidance at all. True classifier-free guidance
with a negative prompt is left out: no published reward fine-tuning of FLUX uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from trainers.core.schedule import Schedule
from trainers.models.base import Conditions, PipelineModel
from trainers.models.levels import dynamic_shift, even_sigmas, flow_levels, row_times


class FluxModel(PipelineModel):
    """Adapter of ``FluxPipeline``; output v = ε − x0, time t = σ of the Euler scheduler."""

    pipeline_class = "FluxPipeline"
    network_name = "transformer"

    @property
    def latent_channels(self) -> int:
        """Channels of unpacked latents; the network sees 2×2 of them as one token."""
        return self.network.config.in_channels // 4

    def default_size(self) -> tuple[int, int]:
        """Return height and width in pixels of what a call without a size draws."""
        side = self.pipe.default_sample_size * self.pipe.vae_scale_factor
        return side, side

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> Conditions:
        tokens = self.tokens_read
        parts = [
            self.pipe.encode_prompt(texts, texts, device=self.device, max_sequence_length=tokens)
            for texts in (list(prompts), [""])
        ]
        (embeds, pooled, _), (empty, empty_pooled, _) = parts
        return Conditions(embeds, pooled, empty, empty_pooled)

    def call_arguments(self, rows: Conditions) -> dict[str, Any]:
        """Return what a pipeline call takes in place of prompts; see ``PipelineModel``."""
        return {"prompt_embeds": rows.embeds, "pooled_prompt_embeds": rows.pooled}

    def predict(
        self, network: nn.Module, latents: Tensor, timestep: float | Tensor, rows: Conditions
    ) -> Tensor:
        """Return v (B, C, H, W) in the network's precision."""
        count, channels, height, width = latents.shape
        device, dtype = latents.device, network.dtype
        packed = self.pipe._pack_latents(latents.to(dtype), count, channels, height, width)
        # The pipeline rounds the time to the network's precision, and so does the policy that is trained.
        times = row_times(timestep, latents).to(dtype) / 1000
        guidance = None
        if network.config.guidance_embeds:
            guidance = torch.full((count,), self.guidance_scale, device=device)
        output = network(
            hidden_states=packed,
            timestep=times,
            guidance=guidance,
            pooled_projections=rows.pooled,
            encoder_hidden_states=rows.embeds,
            txt_ids=torch.zeros(rows.embeds.shape[1], 3, device=device, dtype=dtype),
            img_ids=_places(type(self.pipe), height // 2, width // 2, device, dtype),
            return_dict=False,
        )[0]
        factor = self.pipe.vae_scale_factor
        return self.pipe._unpack_latents(output, height * factor, width * factor, factor)

    def schedule(self, steps: int) -> Schedule:
        """Return the Euler scheduler's σ, shifted by the number of tokens where the scheduler asks for it."""
        _, height, width = self.latent_shape
        shift = dynamic_shift(self.pipe.scheduler, (height // 2) * (width // 2))
        return flow_levels(self.pipe.scheduler, steps, even_sigmas(steps), shift)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # or what the first call made could not be used in training
def _places(kind: type, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the place of every token (H·W, 3), sent to the device once and not at every pass."""
    return kind._prepare_latent_image_ids(1, height, width, device, dtype)
