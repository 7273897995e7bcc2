"""One base model as data, and what it inherits from its family. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from trainers.models.families import FAMILIES
from trainers.registry import Spec


def _frozen(**values: Any) -> Mapping[str, Any]:
    return MappingProxyType(values)


@dataclass(frozen=True)
class ModelSpec(Spec):
    """One base model; ``target`` names the adapter class of its family.

    Attributes:
        family: ``flow`` or ``diffusion``.
        location: Folder below ``assets/``, any other folder, or a Hub id.
        pipeline_class: The diffusers class, a key of ``FAMILIES``.
        lora_targets: Names of the modules that get a LoRA.
        guidance: ``classifier-free`` or ``distilled``.
        call: Arguments of a normal call; an embedded model has them in its ``call.json``.
        sizes: Smallest and largest side of a picture, in pixels.
        size_step: Sides are multiples of it.
        tiny_vae: Where the tiny autoencoder of the same latents is, if there is one.
        decoder: Which autoencoder training pictures pass through: ``own`` or ``tiny``.
        memory: Memory preset in GB, or ``auto``.
        checkpointing: Whether activations are recomputed: ``on``, ``off``, or ``auto`` as memory wants it.
        decodes_gradients: Whether gradients pass through the decoder.
        reward_bytes: What the networks of a run's rewards take of the GPU.
        measured: The architecture of ``memory.COSTS`` whose memory it needs.
        parameters: Parameters of the denoiser, in billions; 0 when unknown.
        gated: Whether the licence has to be accepted on the Hub.
        licence: Name of the weights' licence.
        licence_id: The Hub's identifier of it; empty where the checkpoint has to be asked.
        licence_name: The name by which a model card calls it, where the Hub has no identifier (``other``).
        licence_file: The file of its text in the checkpoint's repository, likewise; empty when not known.
        prompts: Built-in prompt sets that fit the model: ``NAME-train`` and ``NAME-heldout``.
        others: Rewards reported beside the optimised one.
        defaults: Settings of ``RunConfig`` that the model changes.
        pairs: Method → settings of ``RunConfig`` that are known to work with it.
    """

    family: str = "flow"
    location: str = ""
    pipeline_class: str = ""
    lora_targets: tuple[str, ...] = ()
    guidance: str = "classifier-free"
    call: Mapping[str, Any] = field(default_factory=_frozen)
    sizes: tuple[int, int] = (64, 64)
    size_step: int = 64
    tiny_vae: str = ""
    decoder: str = "own"
    memory: str = "auto"
    checkpointing: str = "auto"
    decodes_gradients: bool = False
    reward_bytes: float = 0.0
    measured: str = ""
    parameters: float = 0.0
    gated: bool = False
    licence: str = ""
    licence_id: str = ""
    licence_name: str = ""
    licence_file: str = ""
    prompts: str = "shapes"
    others: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=_frozen)
    pairs: Mapping[str, Mapping[str, Any]] = field(default_factory=_frozen)

    @property
    def embedded(self) -> bool:
        """Whether the weights come with this repository; such models run on any device."""
        return bool(self.location) and "/" not in self.location


def checkpoint(
    name: str, location: str, pipeline_class: str, call: Mapping[str, Any] | None = None, **fields: Any
) -> ModelSpec:
    """Return the entry of a checkpoint: its family's fields, changed by ``fields`` and ``call``."""
    family = FAMILIES[pipeline_class]
    known = {
        "title": name,
        "summary": f"A checkpoint of {family.title}.",
        "target": family.target,
        "family": family.kind,
        "guidance": family.guidance,
        "lora_targets": family.lora_targets,
        "sizes": family.sizes,
        "size_step": family.size_step,
        "tiny_vae": family.tiny_vae,
        "measured": family.measured,
        "prompts": "general",
        "others": ("colorfulness", "sharpness"),
        "defaults": family.defaults,
        "pairs": family.pairs,
    }
    call = _frozen(**(dict(family.call) | dict(call or {})))
    return ModelSpec(name=name, location=location, pipeline_class=pipeline_class, call=call, **known | fields)


def load_arguments(spec: ModelSpec) -> dict[str, Any]:
    """Return what a pipeline is loaded with, beside its precision. An embedded one says so itself.

    The safety checker of Stable Diffusion 1 would replace pictures by black ones, and the watermark of
    Stable Diffusion XL would change what is scored.
    """
    if spec.pipeline_class == "StableDiffusionPipeline":
        return {"safety_checker": None, "requires_safety_checker": False}
    return {"add_watermarker": False} if spec.pipeline_class == "StableDiffusionXLPipeline" else {}
