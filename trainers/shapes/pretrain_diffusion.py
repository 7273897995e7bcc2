"""Pre-train ``tiny-diffusion``: a Stable Diffusion 1 pipeline (noise prediction) on shapes.

UNet and text encoder learn together from scratch. With x0 the scaled latents, ε normal noise and ᾱ the
schedule,

    x_t = √ᾱ_t x0 + √(1 − ᾱ_t) ε,   loss = ‖ ε_θ(x_t, t, text) − ε ‖²

The schedule is Stable Diffusion's scaled-linear one. Sampling uses DDIM with trailing time steps: it starts
at t = 999, where training ends, and a dozen steps then suffice; with leading steps the first step would start
at a visibly less noisy time than pure noise.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from trainers.prompts import load_prompts
from trainers.shapes.evaluate import accuracy
from trainers.shapes.folders import save_pipeline
from trainers.shapes.pool import load_pool
from trainers.shapes.text import text_config
from trainers.shapes.tokenizer import build_tokenizer
from trainers.shapes.training import Draw, Settings, start_from, train

HIDDEN = 96
CALL = {
    "load": {"safety_checker": None, "requires_safety_checker": False},
    "call": {"num_inference_steps": 10, "guidance_scale": 1.0},
}
DEFAULTS = {"batch": 64, "lr": 8e-4, "threads": 1}


class DiffusionModel(nn.Module):
    """UNet and text encoder: tokens in, predicted noise out."""

    def __init__(self) -> None:
        """Build the untrained parts."""
        super().__init__()
        self.text_encoder = CLIPTextModel(text_config(HIDDEN, layers=3))
        self.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(64, 96),
            layers_per_block=1,
            cross_attention_dim=HIDDEN,
            attention_head_dim=4,
            norm_num_groups=16,
        )

    def forward(self, latents: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the predicted noise (B, 4, 8, 8) at noisy latents (B, 4, 8, 8) and time steps (B,)."""
        embeds = self.text_encoder(tokens)[0]
        return self.unet(latents, t, encoder_hidden_states=embeds, return_dict=False)[0]


def build_scheduler() -> DDIMScheduler:
    """Return the sampler; its ᾱ is also the training schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def build_pipeline(model: DiffusionModel, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """Assemble the diffusers pipeline around trained parts."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=build_tokenizer(),
        unet=model.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pretrain(settings: Settings) -> None:
    """Train the pipeline and write it to ``settings.out / "model"``."""
    torch.manual_seed(settings.seed)
    pool = load_pool(settings.out.parent, settings.vae, settings.pool, settings.seed, settings.device)
    model = DiffusionModel().to(settings.device, memory_format=torch.channels_last)
    if settings.start is not None:
        start_from(model, settings.start)
    kept = build_scheduler().alphas_cumprod.to(settings.device)

    def loss(model: nn.Module, draw: Draw) -> torch.Tensor:
        latents, tokens = pool.batch(draw, settings.batch, settings.device)
        noise = torch.randn(latents.shape, generator=draw.noise).to(settings.device)
        # A little towards high noise, where the layout is decided.
        t = (1000 * torch.rand(len(latents), generator=draw.noise) ** 0.75).long().to(settings.device)
        alpha = kept[t][:, None, None, None]
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.device == "cpu" and settings.bfloat16):
            predicted = model(noisy.contiguous(memory_format=torch.channels_last), t, tokens)
        return nn.functional.mse_loss(predicted.float(), noise)

    def snapshot(average: nn.Module, folder: Path) -> dict:
        vae = AutoencoderKL.from_pretrained(settings.vae, torch_dtype=torch.float32)
        save_pipeline(build_pipeline(average, vae), folder, CALL)
        return accuracy(folder, load_prompts(str(settings.prompts))[: settings.check]).numbers

    train(settings, model, loss, snapshot)
