"""The matrices of a stored LoRA under the network's own names; foreign ones are translated by diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from trainers.adapter_start import strangers, untrained
from trainers.errors import InputError
from trainers.models.base import PipelineModel
from trainers.stored_lora import StoredLora, own_names, parsed_name


@dataclass(frozen=True)
class Part:
    """What a LoRA does to one module.

    Attributes:
        down: A (r, in, …).
        up: B (out, r, …).
        scale: What B·A is multiplied with.
    """

    down: Tensor
    up: Tensor
    scale: float


def read_tensors(lora: StoredLora, model: PipelineModel, trained: Sequence[str]) -> dict[str, Part]:
    """Return what a LoRA does to each module, by the network's own names.

    Args:
        lora: The LoRA.
        model: The base model, loaded.
        trained: Modules that a run trains.

    Raises:
        InputError: It changes modules that the network does not have, or that a run does not train.
    """
    raw = load_file(lora.file)
    own = own_names(lora, [name for name, _ in model.network.named_modules()])
    strange = [module for module in lora.pairs if module not in own]
    if not strange:
        parts = {
            name: Part(raw[lora.pairs[module]["A"][0]], raw[lora.pairs[module]["B"][0]], lora.scale(module))
            for module, name in own.items()
        }
    elif not lora.foreign or not (parts := _translated(raw, lora, model)):
        raise InputError(strangers(lora, strange))
    if others := [module for module in parts if module not in set(trained)]:
        raise InputError(*(untrained(others, model.spec) or [strangers(lora, others)]))
    return parts


def _translated(raw: Mapping[str, Tensor], lora: StoredLora, model: PipelineModel) -> dict[str, Part]:
    """Return the parts of a LoRA as diffusers reads it for this pipeline; empty when it cannot."""
    kind, network = type(model.pipe), model.network
    if not hasattr(kind, "lora_state_dict"):
        return {}
    unet = {"unet_config": network.config} if model.network_name == "unet" else {}
    try:
        read = kind.lora_state_dict(dict(raw), **unet)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError):
        return {}
    tensors, alphas = read if isinstance(read, tuple) else (read, {})
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if (found := parsed_name(name)) is None:
            return {}
        sides.setdefault(found.module, {})[found.side] = tensor
    known = {name for name, _ in network.named_modules()}
    if not sides or not all(module in known and len(pair) == 2 for module, pair in sides.items()):
        return {}
    alphas_of = {_module(name): float(alpha) for name, alpha in (alphas or {}).items()}
    return {
        # Translators that return no alphas have multiplied them in.
        module: Part(pair["A"], pair["B"], alphas_of.get(module, len(pair["A"])) / len(pair["A"]))
        for module, pair in sides.items()
    }


def _module(name: str) -> str:
    """Return the module that a translated alpha belongs to."""
    stem: Any = name.removesuffix(".alpha")
    found = parsed_name(stem if stem.endswith(".weight") else f"{stem}.lora_A.weight")
    return found.module if found else stem
