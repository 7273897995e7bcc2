"""Full-size architectures as numbers, one of every family. Torch-free.

They are those of the published configs, so speed and memory measured on random weights of them are those of
the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Size:
    """One architecture.

    Attributes:
        pipeline_class: A key of ``FAMILIES``.
        network: Class and config of the denoiser.
        vae: Class and config of the autoencoder.
        scheduler: Class and config of the scheduler.
        tokens: Length L of the prompt embeddings.
        width: Width D of the prompt embeddings.
        pooled: Width D' of the pooled embedding; 0 where there is none.
        call: Arguments of a normal call that differ from the family's.
    """

    pipeline_class: str
    network: tuple[str, Mapping[str, Any]]
    vae: tuple[str, Mapping[str, Any]]
    scheduler: tuple[str, Mapping[str, Any]]
    tokens: int
    width: int
    pooled: int = 0
    call: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}


def vae(
    channels: tuple[int, ...], latent: int, scale: float, layers: int = 2, **more: Any
) -> tuple[str, dict]:
    """Return class and config of an ``AutoencoderKL``.

    Args:
        channels: Channels of its blocks; each but the last halves the side.
        latent: Channels of the latents.
        scale: Their scaling factor.
        layers: Layers of each block.
        more: Other fields of the config.
    """
    config = {
        "block_out_channels": channels,
        "down_block_types": (_DOWN,) * len(channels),
        "up_block_types": (_UP,) * len(channels),
        "layers_per_block": layers,
        "latent_channels": latent,
        "scaling_factor": scale,
        "norm_num_groups": min(32, channels[0]),
    }
    return "AutoencoderKL", config | more


def ddim(**more: Any) -> tuple[str, dict]:
    """Return class and config of Stable Diffusion's noise schedule, as DDIM samples it."""
    config = {**BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    return "DDIMScheduler", config | more


def euler(**config: Any) -> tuple[str, dict]:
    """Return class and config of a rectified flow's Euler scheduler."""
    return "FlowMatchEulerDiscreteScheduler", config


_FULL_VAE = (128, 256, 512, 512)
FULL: Mapping[str, Size] = MappingProxyType(
    {
        "sd15": Size(
            "StableDiffusionPipeline",
            (
                "UNet2DConditionModel",
                {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64},
            ),
            vae(_FULL_VAE, 4, 0.18215),
            ddim(),
            77,
            768,
            call={"height": 512, "width": 512},
        ),
        "sdxl": Size(
            "StableDiffusionXLPipeline",
            (
                "UNet2DConditionModel",
                {
                    "sample_size": 128,
                    "block_out_channels": (320, 640, 1280),
                    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                    "transformer_layers_per_block": (1, 2, 10),
                    "attention_head_dim": (5, 10, 20),
                    "cross_attention_dim": 2048,
                    "use_linear_projection": True,
                    "addition_embed_type": "text_time",
                    "addition_time_embed_dim": 256,
                    "projection_class_embeddings_input_dim": 2816,
                },
            ),
            vae(_FULL_VAE, 4, 0.13025, force_upcast=True),
            ("EulerDiscreteScheduler", {**BETAS, "steps_offset": 1, "timestep_spacing": "leading"}),
            77,
            2048,
            1280,
            call={"height": 1024, "width": 1024},
        ),
        "sd35-medium": Size(
            "StableDiffusion3Pipeline",
            (
                "SD3Transformer2DModel",
                {
                    "sample_size": 128,
                    "patch_size": 2,
                    "in_channels": 16,
                    "num_layers": 24,
                    "attention_head_dim": 64,
                    "num_attention_heads": 24,
                    "joint_attention_dim": 4096,
                    "caption_projection_dim": 1536,
                    "pooled_projection_dim": 2048,
                    "out_channels": 16,
                    "pos_embed_max_size": 384,
                    "dual_attention_layers": tuple(range(13)),
                    "qk_norm": "rms_norm",
                },
            ),
            vae(_FULL_VAE, 16, 1.5305, shift_factor=0.0609, **NO_QUANT),
            euler(shift=3.0),
            333,
            4096,
            2048,
            call={"height": 512, "width": 512},
        ),
        "flux-dev": Size(
            "FluxPipeline",
            (
                "FluxTransformer2DModel",
                {
                    "in_channels": 64,
                    "num_layers": 19,
                    "num_single_layers": 38,
                    "attention_head_dim": 128,
                    "num_attention_heads": 24,
                    "joint_attention_dim": 4096,
                    "pooled_projection_dim": 768,
                    "guidance_embeds": True,
                },
            ),
            vae(_FULL_VAE, 16, 0.3611, shift_factor=0.1159, **NO_QUANT),
            euler(shift=3.0, use_dynamic_shifting=True),
            256,
            4096,
            768,
            call={"height": 512, "width": 512},
        ),
        "sd35-large": Size(
            "StableDiffusion3Pipeline",
            (
                "SD3Transformer2DModel",
                {
                    "sample_size": 128,
                    "patch_size": 2,
                    "in_channels": 16,
                    "num_layers": 38,
                    "attention_head_dim": 64,
                    "num_attention_heads": 38,
                    "joint_attention_dim": 4096,
                    "caption_projection_dim": 2432,
                    "pooled_projection_dim": 2048,
                    "out_channels": 16,
                    "pos_embed_max_size": 192,
                    "qk_norm": "rms_norm",
                },
            ),
            vae(_FULL_VAE, 16, 1.5305, shift_factor=0.0609, **NO_QUANT),
            euler(shift=3.0),
            333,
            4096,
            2048,
            call={"height": 512, "width": 512},
        ),
        "sana": Size(
            "SanaPipeline",
            ("SanaTransformer2DModel", {}),  # the class's defaults are the 1.6 B model
            (
                "AutoencoderDC",
                {
                    "encoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
                    "decoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
                    "downsample_block_type": "conv",
                    "upsample_block_type": "interpolate",
                    "scaling_factor": 0.41407,
                },
            ),
            (
                "DPMSolverMultistepScheduler",
                {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
            ),
            300,
            2304,
            call={"height": 1024, "width": 1024},
        ),
        "pixart-sigma": Size(
            "PixArtSigmaPipeline",
            (
                "PixArtTransformer2DModel",
                {
                    "sample_size": 128,
                    "out_channels": 8,
                    "cross_attention_dim": 1152,
                    "caption_channels": 4096,
                    "interpolation_scale": 2,
                    "use_additional_conditions": False,
                },
            ),
            vae(_FULL_VAE, 4, 0.13025),
            (
                "DPMSolverMultistepScheduler",
                {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"},
            ),
            300,
            4096,
            call={"height": 1024, "width": 1024},
        ),
        "z-image": Size(
            "ZImagePipeline",
            ("ZImageTransformer2DModel", {}),  # the class's defaults are the 6 B model
            vae(_FULL_VAE, 16, 0.3611, shift_factor=0.1159, **NO_QUANT),
            euler(shift=6.0),
            64,
            2560,
            call={"height": 512, "width": 512},
        ),
    }
)
