"""Pre-train ``tiny-flow``: a Stable Diffusion 3 pipeline (rectified flow) on shapes.

The transformer and both text encoders learn together from scratch. With x0 the scaled latents, ε normal noise
and σ in (0, 1),

    x_σ = (1 − σ) x0 + σ ε,   loss = ‖ v(x_σ, 1000 σ, text) − (ε − x0) ‖²

Text enters exactly as ``StableDiffusion3Pipeline.encode_prompt`` feeds it: both penultimate hidden states
side by side, then ``ZERO_TOKENS`` zero tokens in place of the absent T5 encoder, and both projected
embeddings as the pooled vector.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import nn
from transformers import CLIPTextModelWithProjection

from trainers.prompts import load_prompts
from trainers.shapes.evaluate import accuracy
from trainers.shapes.folders import save_pipeline
from trainers.shapes.pool import load_pool
from trainers.shapes.text import text_config
from trainers.shapes.tokenizer import build_tokenizer
from trainers.shapes.training import Draw, Settings, start_from, train

HIDDEN, ZERO_TOKENS = 64, 1
CALL = {
    "load": {"text_encoder_3": None, "tokenizer_3": None},
    "call": {"num_inference_steps": 12, "guidance_scale": 1.0, "max_sequence_length": ZERO_TOKENS},
}
DEFAULTS = {"batch": 64, "lr": 6e-4, "threads": 1}


class FlowModel(nn.Module):
    """Transformer and text encoders: tokens in, velocity out."""

    def __init__(self) -> None:
        """Build the untrained parts."""
        super().__init__()
        config = text_config(HIDDEN, layers=3)
        self.text_encoder = CLIPTextModelWithProjection(config)
        self.text_encoder_2 = CLIPTextModelWithProjection(config)
        self.transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=4,
            attention_head_dim=64,
            num_attention_heads=3,
            joint_attention_dim=2 * HIDDEN,
            caption_projection_dim=192,
            pooled_projection_dim=2 * HIDDEN,
            out_channels=4,
            pos_embed_max_size=4,
        )

    def encode(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return prompt embeddings (B, L + ZERO_TOKENS, 128) and pooled embeddings (B, 128)."""
        outputs = [
            encoder(tokens, output_hidden_states=True) for encoder in (self.text_encoder, self.text_encoder_2)
        ]
        embeds = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        # Zero tokens at the end of the sequence, where the pipeline puts T5's.
        embeds = nn.functional.pad(embeds, (0, 0, 0, ZERO_TOKENS))
        return embeds, torch.cat([output.text_embeds for output in outputs], dim=-1)

    def forward(self, latents: torch.Tensor, sigma: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the velocity (B, 4, 8, 8) at noisy latents (B, 4, 8, 8) and noise levels (B,)."""
        embeds, pooled = self.encode(tokens)
        return self.transformer(
            hidden_states=latents,
            timestep=1000 * sigma,
            encoder_hidden_states=embeds,
            pooled_projections=pooled,
            return_dict=False,
        )[0]


def build_pipeline(model: FlowModel, vae: AutoencoderKL) -> StableDiffusion3Pipeline:
    """Assemble the diffusers pipeline around trained parts."""
    return StableDiffusion3Pipeline(
        transformer=model.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0, shift_terminal=0.1),
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=build_tokenizer(),
        text_encoder_2=model.text_encoder_2,
        tokenizer_2=build_tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )


def pretrain(settings: Settings) -> None:
    """Train the pipeline and write it to ``settings.out / "model"``."""
    torch.manual_seed(settings.seed)
    pool = load_pool(settings.out.parent, settings.vae, settings.pool, settings.seed, settings.device)
    model = FlowModel().to(settings.device)
    if settings.start is not None:
        start_from(model, settings.start)

    def loss(model: nn.Module, draw: Draw) -> torch.Tensor:
        latents, tokens = pool.batch(draw, settings.batch, settings.device)
        noise = torch.randn(latents.shape, generator=draw.noise).to(settings.device)
        # Logit-normal, as in Stable Diffusion 3, a little wider and towards noise, where the layout is
        # decided.
        sigma = torch.sigmoid(0.3 + 1.2 * torch.randn(len(latents), generator=draw.noise)).to(settings.device)
        level = sigma[:, None, None, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.device == "cpu" and settings.bfloat16):
            velocity = model((1 - level) * latents + level * noise, sigma, tokens)
        return nn.functional.mse_loss(velocity.float(), noise - latents)

    def snapshot(average: nn.Module, folder: Path) -> dict:
        vae = AutoencoderKL.from_pretrained(settings.vae, torch_dtype=torch.float32)
        save_pipeline(build_pipeline(average, vae), folder, CALL)
        return accuracy(folder, load_prompts(str(settings.prompts))[: settings.check]).numbers

    train(settings, model, loss, snapshot)
