"""Tiny architectures, one of every family (two predictions of Stable Diffusion), shared by tests and bench.

They have every kind of block of their family, in the smallest number and width. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trainers.models.sizes import BETAS, NO_QUANT, Size, ddim, euler, vae

_TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
_STEPS = {"num_inference_steps": 4}
_TINY_VAE4 = vae((4, 8), 4, 0.5, layers=1)
_TINY_VAE16 = vae((4, 8), 16, 0.5, layers=1, shift_factor=0.1, **NO_QUANT)
TINY: Mapping[str, Size] = MappingProxyType(
    {
        "tiny-sd15": Size(
            "StableDiffusionPipeline",
            ("UNet2DConditionModel", _TINY_UNET),
            _TINY_VAE4,
            ddim(),
            12,
            16,
            call=_STEPS,
        ),
        "tiny-sd21": Size(
            "StableDiffusionPipeline",
            ("UNet2DConditionModel", _TINY_UNET),
            _TINY_VAE4,
            ddim(prediction_type="v_prediction"),
            12,
            16,
            call=_STEPS,
        ),
        "tiny-sdxl": Size(
            "StableDiffusionXLPipeline",
            (
                "UNet2DConditionModel",
                _TINY_UNET
                | {
                    "cross_attention_dim": 32,
                    "addition_embed_type": "text_time",
                    "addition_time_embed_dim": 4,
                    "projection_class_embeddings_input_dim": 40,
                },
            ),
            _TINY_VAE4,
            ("EulerDiscreteScheduler", {**BETAS, "steps_offset": 1, "timestep_spacing": "leading"}),
            12,
            32,
            16,
            call=_STEPS,
        ),
        "tiny-sd3": Size(
            "StableDiffusion3Pipeline",
            (
                "SD3Transformer2DModel",
                {
                    "sample_size": 8,
                    "patch_size": 2,
                    "in_channels": 16,
                    "out_channels": 16,
                    "num_layers": 2,
                    "attention_head_dim": 8,
                    "num_attention_heads": 2,
                    "joint_attention_dim": 32,
                    "caption_projection_dim": 16,
                    "pooled_projection_dim": 32,
                    "pos_embed_max_size": 16,
                    "dual_attention_layers": (0,),
                    "qk_norm": "rms_norm",
                },
            ),
            _TINY_VAE16,
            euler(shift=3.0),
            24,
            32,
            32,
            call=_STEPS | {"max_sequence_length": 12},
        ),
        "tiny-flux": Size(
            "FluxPipeline",
            (
                "FluxTransformer2DModel",
                {
                    "in_channels": 64,
                    "num_layers": 1,
                    "num_single_layers": 1,
                    "attention_head_dim": 8,
                    "num_attention_heads": 2,
                    "joint_attention_dim": 16,
                    "pooled_projection_dim": 16,
                    "guidance_embeds": True,
                    "axes_dims_rope": (2, 2, 4),
                },
            ),
            _TINY_VAE16,
            euler(shift=3.0, use_dynamic_shifting=True),
            12,
            16,
            16,
            call=_STEPS | {"max_sequence_length": 12, "height": 16, "width": 16},
        ),
        "tiny-sana": Size(
            "SanaPipeline",
            (
                "SanaTransformer2DModel",
                {
                    "in_channels": 4,
                    "out_channels": 4,
                    "num_layers": 2,
                    "num_attention_heads": 2,
                    "attention_head_dim": 8,
                    "num_cross_attention_heads": 2,
                    "cross_attention_head_dim": 8,
                    "cross_attention_dim": 16,
                    "caption_channels": 16,
                    "sample_size": 16,
                },
            ),
            (
                "AutoencoderDC",
                {
                    "latent_channels": 4,
                    "attention_head_dim": 2,
                    "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
                    "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
                    "encoder_block_out_channels": (8, 8),
                    "decoder_block_out_channels": (8, 8),
                    "encoder_layers_per_block": (1, 1),
                    "decoder_layers_per_block": (1, 1),
                    "encoder_qkv_multiscales": ((), (5,)),
                    "decoder_qkv_multiscales": ((), (5,)),
                    "scaling_factor": 0.5,
                },
            ),
            (
                "DPMSolverMultistepScheduler",
                {
                    "use_flow_sigmas": True,
                    "prediction_type": "flow_prediction",
                    "flow_shift": 3.0,
                    "solver_order": 1,
                },
            ),
            12,
            16,
            call=_STEPS | {"max_sequence_length": 12, "height": 32, "width": 32},
        ),
        "tiny-pixart": Size(
            "PixArtSigmaPipeline",
            (
                "PixArtTransformer2DModel",
                {
                    "sample_size": 8,
                    "num_layers": 2,
                    "patch_size": 2,
                    "in_channels": 4,
                    "out_channels": 8,
                    "num_attention_heads": 2,
                    "attention_head_dim": 8,
                    "cross_attention_dim": 16,
                    "caption_channels": 16,
                    "use_additional_conditions": False,
                },
            ),
            _TINY_VAE4,
            (
                "DPMSolverMultistepScheduler",
                {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "solver_order": 1},
            ),
            12,
            16,
            call=_STEPS | {"max_sequence_length": 12},
        ),
        "tiny-z-image": Size(
            "ZImagePipeline",
            (
                "ZImageTransformer2DModel",
                {
                    "in_channels": 16,
                    "dim": 32,
                    "n_layers": 2,
                    "n_refiner_layers": 1,
                    "n_heads": 2,
                    "n_kv_heads": 2,
                    "cap_feat_dim": 16,
                    "axes_dims": (4, 6, 6),
                    "axes_lens": (128, 32, 32),
                },
            ),
            _TINY_VAE16,
            euler(shift=3.0),
            12,
            16,
            call=_STEPS | {"max_sequence_length": 32, "height": 16, "width": 16},
        ),
    }
)
