"""Pre-train the autoencoder that both tiny pipelines share: 64×64 pictures to 8×8×4 latents and back.

Pictures are drawn afresh for every batch. The loss is foreground-weighted L1 plus squared error plus a small
KL term; the background covers most of a picture and would drown the outlines otherwise. No adversarial or
perceptual loss: the pictures are flat shapes. The latents' scale is measured at the end and written as
``scaling_factor``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from trainers.shapes.render import render
from trainers.shapes.scenes import sample_scene
from trainers.shapes.training import Draw, Settings, train

KL_WEIGHT, FOREGROUND_WEIGHT = 3e-4, 4.0
DEFAULTS = {"batch": 24, "lr": 2e-3}


def build_vae() -> AutoencoderKL:
    """Return the untrained autoencoder: factor 8, 0.67 M parameters, no attention."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(16, 16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
        shift_factor=0.0,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def draw_pictures(rng: np.random.Generator, count: int) -> torch.Tensor:
    """Return fresh pre-training pictures, float32 (count, 3, 64, 64) in [-1, 1]."""
    pictures = np.stack([render(sample_scene(rng)) for _ in range(count)])
    return to_tensor(pictures)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """Return uint8 pictures (B, H, W, 3) as float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def pretrain(settings: Settings) -> None:
    """Train the autoencoder and write it to ``settings.out / "model"``."""
    torch.manual_seed(settings.seed)
    # channels_last halves the time of these narrow convolutions on CPUs.
    vae = build_vae().to(settings.device, memory_format=torch.channels_last)
    train(settings, vae, lambda model, draw: _loss(model, draw, settings), _snapshot)


def _loss(vae: AutoencoderKL, draw: Draw, settings: Settings) -> torch.Tensor:
    pictures = draw_pictures(draw.data, settings.batch).to(settings.device, memory_format=torch.channels_last)
    posterior = vae.encode(pictures).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=draw.noise).to(settings.device)
    decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    error = decoded - pictures
    # Scenes keep a border free, so the corner pixel is the background.
    foreground = ((pictures - pictures[..., :1, :1]).abs().amax(1, keepdim=True) > 0.05).float()
    weight = 1 + FOREGROUND_WEIGHT * foreground
    divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    return (weight * (error.abs() + error**2)).mean() + KL_WEIGHT * divergence


@torch.no_grad()
def _snapshot(vae: AutoencoderKL, folder: Path) -> dict:
    device = next(vae.parameters()).device
    pictures = draw_pictures(np.random.default_rng(12345), 256).to(device)
    means = vae.encode(pictures).latent_dist.mean
    error = vae.decode(means).sample - pictures
    saved = build_vae().half()
    saved.load_state_dict(vae.state_dict())
    saved.register_to_config(scaling_factor=round(1 / float(means.std()), 4))
    saved.save_pretrained(folder)
    per_channel = [round(float(s), 3) for s in means.std((0, 2, 3))]
    return {"mse": float(error.square().mean()) / 4, "std": per_channel, "mean": float(means.mean())}
