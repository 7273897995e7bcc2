"""The model table: every base model is one entry; families are adapters in this package. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from trainers.registry import Registry, Spec


@dataclass(frozen=True)
class ModelSpec(Spec):
    """One base model; ``target`` names the adapter class of its family.

    Attributes:
        family: ``flow`` or ``diffusion``.
        location: Folder below ``assets/`` or a Hub id.
        lora_targets: Names of the modules that get a LoRA.
        prompts: Built-in training prompts that fit the model.
        heldout_prompts: Built-in held-out prompts that fit the model.
        others: Rewards reported beside the optimised one.
        defaults: Settings of ``RunConfig`` that the model changes.
    """

    family: str = "flow"
    location: str = ""
    lora_targets: tuple[str, ...] = ()
    prompts: str = "shapes-train"
    heldout_prompts: str = "shapes-heldout"
    others: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


_ATTENTION_8 = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
# A small transformer learns twice as much per update when its feed-forward layers may move too (docs/LOG.md).
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_SHAPES_OTHERS = ("shapes", "shapes_exact", "tiny_clip", "colorfulness")

MODELS: Registry[ModelSpec] = Registry(
    "model",
    [
        ModelSpec(
            name="tiny-flow",
            title="Tiny Flow",
            summary="Stable Diffusion 3 architecture, rectified flow; draws coloured shapes at 64×64 pixels.",
            target="trainers.models.sd3:StableDiffusion3Model",
            family="flow",
            location="tiny-flow",
            lora_targets=_ATTENTION_8 + _FEED_FORWARD,
            others=_SHAPES_OTHERS,
            defaults=MappingProxyType(
                {
                    "rollout_steps": 6,
                    "kl_weight": 0.02,
                    "eval_prompts": 160,
                    "eval_samples_per_prompt": 4,
                    "micro_batch": 64,
                }
            ),
        ),
        ModelSpec(
            name="tiny-diffusion",
            title="Tiny Diffusion",
            summary="Stable Diffusion 1 architecture, noise prediction; draws coloured shapes at 64×64.",
            target="trainers.models.sd1:StableDiffusion1Model",
            family="diffusion",
            location="tiny-diffusion",
            lora_targets=("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"),
            others=_SHAPES_OTHERS,
            defaults=MappingProxyType(
                {
                    "rollout_steps": 8,
                    "noise_level": 1.0,
                    "clip_range": 1e-4,
                    "kl_weight": 0.02,
                    "eval_prompts": 160,
                    "eval_samples_per_prompt": 4,
                    "micro_batch": 64,
                }
            ),
        ),
    ],
)
