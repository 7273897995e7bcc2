"""The model families: what all checkpoints of one diffusers pipeline class have in common. Torch-free.

A checkpoint is recognised by the class named in its ``model_index.json``; everything else a run needs (where
the LoRA goes, which picture sizes work, which tiny autoencoder reads the latents, which settings are known to
work) hangs on the family. Prediction type and noise schedule are not here: they are read from the
checkpoint's own scheduler. Settings per method are the published ones, not those of runs made here;
docs/DEFAULTS.md names sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

ATTENTION_4 = ("to_q", "to_k", "to_v", "to_out.0")
ATTENTION_8 = (*ATTENTION_4, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def _frozen(**values: Any) -> Mapping[str, Any]:
    return MappingProxyType(values)


@dataclass(frozen=True)
class Reads:
    """How a pipeline reads a prompt: with which of its tokenizers, and how much of it.

    Attributes:
        tokenizer: The pipeline's name of it.
        encoder: The part that is given its tokens; without it nothing is read with it.
        tokens: Most tokens of a prompt unless the call says otherwise; 0 for the tokenizer's own number.
        lowered: Whether the pipeline writes prompts in lower case first.
        around: What the pipeline puts around a prompt: nothing, ``chat`` or ``instruction``.
    """

    tokenizer: str = "tokenizer"
    encoder: str = "text_encoder"
    tokens: int = 0
    lowered: bool = False
    around: str = ""


@dataclass(frozen=True)
class Family:
    """One pipeline class of diffusers.

    Attributes:
        pipeline_class: ``_class_name`` in ``model_index.json``.
        title: What people call it.
        target: The adapter, "module:attribute".
        kind: ``flow`` or ``diffusion``: what the network predicts, once converted.
        network: The pipeline's name of the denoiser.
        network_class: Its diffusers class.
        earlier_classes: What that class was called in earlier releases; diffusers opens those as this one.
        encoders: The text encoders that a call needs; each has a tokenizer of the same number.
        guidance: ``classifier-free``, or ``distilled`` where the scale is an input of the network.
        lora_targets: Names of the modules that get a LoRA.
        sizes: Smallest and largest side of a picture, in pixels.
        size_step: Sides are multiples of it: the autoencoder's factor times the patch.
        measured: The architecture of ``memory.COSTS`` whose memory a checkpoint is taken to need.
        tiny_vae: Hub id of the tiny autoencoder of the same latents; empty when there is none.
        hands_levels: Whether the pipeline hands its scheduler the noise levels.
        reads: How prompts are read, furthest first; the first way whose parts are there counts.
        peft: Whether diffusers has no LoRA loader for it, so that its LoRA is also written for PEFT.
        call: Arguments of a normal call.
        defaults: Settings of ``RunConfig`` that the family changes.
        pairs: Method → settings that are known to work with it.
    """

    pipeline_class: str
    title: str
    target: str
    kind: str
    network_class: str
    earlier_classes: tuple[str, ...] = ()
    network: str = "transformer"
    encoders: tuple[str, ...] = ("text_encoder",)
    guidance: str = "classifier-free"
    measured: str = ""
    lora_targets: tuple[str, ...] = ATTENTION_4
    sizes: tuple[int, int] = (256, 1024)
    size_step: int = 16
    tiny_vae: str = ""
    hands_levels: bool = False
    reads: tuple[Reads, ...] = (Reads(),)
    peft: bool = False
    call: Mapping[str, Any] = field(default_factory=_frozen)
    defaults: Mapping[str, Any] = field(default_factory=_frozen)
    pairs: Mapping[str, Mapping[str, Any]] = field(default_factory=_frozen)


_LARGE = {
    "budget_seconds": 3600.0,
    "long_prompts": "cut",  # as the pipelines do for any caller; an embedded model would read next to nothing
    "learning_rate": 3e-4,
    "micro_batch": 16,
    "eval_prompts": 32,
    "eval_batch": 4,
    "probe_prompts": 4,
    "probe_every": 20,
    "checkpoint_seconds": 60.0,
}
_EMA = {"ema_decay": 0.9, "ema_every": 8}
_FLOW = _frozen(
    **_LARGE,
    rollout_steps=10,
    lora_rank=32,
    lora_alpha=64.0,
    branches=(6, 6, 8, 10),
    prompts_per_update=16,
    group_size=24,
    clip_range=1e-4,
)
_DIFFUSION = _frozen(
    **_LARGE,
    rollout_steps=50,
    noise_level=1.0,
    lora_rank=16,
    lora_alpha=16.0,
    branches=tuple(20 if step % 10 == 0 else 0 for step in range(41)),
    prompts_per_update=8,
    group_size=16,
    clip_range=1e-4,
)
_FIRST = {"lora_rank": 8, "lora_alpha": 8.0}
_FIRST_FLOW = {
    **_FIRST,
    "prompts_per_update": 8,
    "learning_rate": 5e-4,
    "rollout_steps": 20,
    "weight_decay": 1e-2,
}
_TREE = {"branches": (2, 0, 0, 2, 0, 0, 2, 0, 0, 2), "rollout_steps": 20, "clip_range": 1e-3}
_FLOW_PAIRS = _frozen(
    rsm_zeroth_order_flow=_frozen(roots_per_prompt=4, **_EMA),
    grpo=_frozen(**_EMA),
    tempflow_grpo=_frozen(roots_per_prompt=4, branches=(6,) * 9, **_EMA),
    branch_grpo=_frozen(**_TREE, kernel="flow_constant", noise_level=0.3),
    grpo_guard=_frozen(learning_rate=1e-4, **_EMA),
    pcpo_flow=_frozen(**_EMA),
    rsm_first_order_flow=_frozen(**_FIRST_FLOW, reward_scale=0.5),
    vgg_flow=_frozen(**_FIRST_FLOW),
    awm=_frozen(rollout_steps=14, ema_decay=0.99, ema_every=1),
    diffusion_nft=_frozen(max_grad_norm=0.2, ema_decay=0.9, ema_every=1),
    ram=_frozen(rollout_steps=20, max_grad_norm=1e6),
)
# As published on Stable Diffusion 3.5: forward-process methods without classifier-free guidance, in training
# and in the comparison, first-order ones with a scale of 5; and PCPO's constant is that of its ten steps.
_SD3_PAIRS = _frozen(
    **dict(_FLOW_PAIRS)
    | {
        "awm": _frozen(**_FLOW_PAIRS["awm"], guidance_scale=1.0),
        "diffusion_nft": _frozen(**_FLOW_PAIRS["diffusion_nft"], guidance_scale=1.0),
        "pcpo_flow": _frozen(**_FLOW_PAIRS["pcpo_flow"], interval_weight=4.3152134639895925),
        "rsm_first_order_flow": _frozen(**_FLOW_PAIRS["rsm_first_order_flow"], guidance_scale=5.0),
        "vgg_flow": _frozen(**_FLOW_PAIRS["vgg_flow"], guidance_scale=5.0),
    }
)
_DIFFUSION_PAIRS = _frozen(
    rsm_zeroth_order_diffusion=_frozen(kernel="pcpo"),
    pcpo=_frozen(kernel="pcpo"),
    grpo=_frozen(prompts_per_update=4, initial_noise="shared", kl_weight=0.0, advantage_std="group"),
    ppo=_frozen(lora_rank=4, lora_alpha=4.0, prompts_per_update=32, group_size=8),
    branch_grpo=_frozen(**_TREE),
    rsm_first_order_diffusion=_frozen(
        **_FIRST, prompts_per_update=64, learning_rate=4e-3, train_fraction=0.2
    ),
    residual_nabla_db=_frozen(**_FIRST, prompts_per_update=64, learning_rate=1e-3, train_fraction=0.2),
    sqdf=_frozen(lora_rank=4, lora_alpha=4.0, prompts_per_update=64, learning_rate=1e-3, train_fraction=0.02),
)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.pipeline_class: family
        for family in (
            Family(
                pipeline_class="StableDiffusionPipeline",
                title="Stable Diffusion 1 and 2",
                target="trainers.models.sd1:StableDiffusion1Model",
                kind="diffusion",
                network_class="UNet2DConditionModel",
                network="unet",
                measured="sd15",
                sizes=(256, 1024),
                size_step=8,
                tiny_vae="madebyollin/taesd",
                call=_frozen(num_inference_steps=50, guidance_scale=5.0),
                defaults=_DIFFUSION,
                pairs=_DIFFUSION_PAIRS,
            ),
            Family(
                pipeline_class="StableDiffusionXLPipeline",
                title="Stable Diffusion XL",
                target="trainers.models.sdxl:StableDiffusionXLModel",
                kind="diffusion",
                network_class="UNet2DConditionModel",
                network="unet",
                encoders=("text_encoder", "text_encoder_2"),
                measured="sdxl",
                sizes=(512, 1536),
                size_step=8,
                tiny_vae="madebyollin/taesdxl",
                call=_frozen(num_inference_steps=30, guidance_scale=5.0),
                defaults=_DIFFUSION,
                pairs=_DIFFUSION_PAIRS,
            ),
            Family(
                pipeline_class="StableDiffusion3Pipeline",
                title="Stable Diffusion 3 and 3.5",
                target="trainers.models.sd3:StableDiffusion3Model",
                kind="flow",
                network_class="SD3Transformer2DModel",
                encoders=("text_encoder", "text_encoder_2"),
                measured="sd35-medium",
                lora_targets=ATTENTION_8,
                sizes=(384, 1440),  # below 384 pictures of 3.5 fall apart
                tiny_vae="madebyollin/taesd3",
                reads=(Reads("tokenizer_3", "text_encoder_3", 256), Reads()),
                call=_frozen(num_inference_steps=28, guidance_scale=4.5),
                defaults=_FLOW,
                pairs=_SD3_PAIRS,
            ),
            Family(
                pipeline_class="FluxPipeline",
                title="FLUX.1",
                target="trainers.models.flux:FluxModel",
                kind="flow",
                network_class="FluxTransformer2DModel",
                encoders=("text_encoder", "text_encoder_2"),
                measured="flux-dev",
                guidance="distilled",
                lora_targets=ATTENTION_8,
                sizes=(256, 2048),
                tiny_vae="madebyollin/taef1",
                hands_levels=True,
                reads=(Reads("tokenizer_2", "text_encoder_2", 512),),
                call=_frozen(num_inference_steps=28, guidance_scale=3.5, max_sequence_length=256),
                defaults=_FLOW,
                pairs=_FLOW_PAIRS,
            ),
            Family(
                pipeline_class="SanaPipeline",
                title="Sana",
                target="trainers.models.sana:SanaModel",
                kind="flow",
                network_class="SanaTransformer2DModel",
                measured="sana",
                sizes=(512, 4096),
                size_step=32,
                reads=(Reads(tokens=300, lowered=True, around="instruction"),),
                call=_frozen(num_inference_steps=20, guidance_scale=4.5, use_resolution_binning=False),
                defaults=_FLOW,
                pairs=_FLOW_PAIRS,
            ),
            Family(
                pipeline_class="PixArtSigmaPipeline",
                title="PixArt-Σ",
                target="trainers.models.pixart:PixArtSigmaModel",
                kind="diffusion",
                network_class="PixArtTransformer2DModel",
                earlier_classes=("Transformer2DModel",),
                measured="pixart-sigma",
                reads=(Reads(tokens=300, lowered=True),),
                peft=True,
                sizes=(256, 2048),
                tiny_vae="madebyollin/taesdxl",
                call=_frozen(
                    num_inference_steps=20,
                    guidance_scale=4.5,
                    use_resolution_binning=False,
                    clean_caption=False,
                ),
                defaults=_DIFFUSION,
                pairs=_DIFFUSION_PAIRS,
            ),
            Family(
                pipeline_class="ZImagePipeline",
                title="Z-Image",
                target="trainers.models.z_image:ZImageModel",
                kind="flow",
                network_class="ZImageTransformer2DModel",
                measured="z-image",
                hands_levels=True,
                reads=(Reads(tokens=512, around="chat"),),
                sizes=(256, 2048),
                tiny_vae="madebyollin/taef1",
                call=_frozen(num_inference_steps=30, guidance_scale=4.0),
                defaults=_FLOW,
                pairs=_FLOW_PAIRS,
            ),
        )
    }
)


def supported() -> str:
    """Return the pipeline classes that can be trained, for sentences."""
    return ", ".join(FAMILIES)
