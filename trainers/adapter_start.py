"""Can a run begin from a LoRA? Judged by its header and that of the base model, before anything loads.

Its strength need not be that of the run: what counts is the product (alpha / rank)·B·A, and when the LoRA is
loaded B is scaled so that this stays what it was. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.adapter_file import base_shapes, module_misfit
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.models import MODELS, ModelSpec
from trainers.models.families import FAMILIES
from trainers.stored_lora import StoredLora, own_names, read_lora

# Their pipelines read LoRAs of other code, whose names diffusers translates.
TRANSLATED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline", "ZImagePipeline")
_MOST = 3


def checked_start(config: RunConfig) -> Path:
    """Return the file of the LoRA that a run is to begin from, as far as headers tell that it fits.

    Raises:
        InputError: With every reason why it cannot be used.
    """
    place, lora = config.start_adapter, read_lora(config.start_adapter)
    found = []
    if lora.rank != config.lora_rank:
        found.append(f"The LoRA in '{place}' has rank {lora.rank}; set lora_rank to it.")
    if found := found + start_misfits(lora, MODELS.get(config.model)):
        raise InputError(*found)
    return lora.file


def shape_settings(place: str) -> dict[str, Any]:
    """Return the settings that a LoRA to begin from fixes.

    Raises:
        InputError: There is none, or a run cannot begin from it.
    """
    return {"lora_rank": read_lora(place).rank}


def start_misfits(lora: StoredLora, spec: ModelSpec) -> list[str]:
    """Return why a run of a base model cannot begin from a LoRA, as far as headers tell."""
    family = FAMILIES[spec.pipeline_class]
    if lora.network and lora.network != family.network:
        return [
            f"The LoRA is one of a {lora.network}, but '{spec.name}' has a {family.network}: it was made for "
            "another kind of base model."
        ]
    try:
        _, shapes = base_shapes(spec)
    except InputError:  # told by what loads the model
        shapes = {}
    known = {name.removesuffix(".weight") for name in shapes}
    own = own_names(lora, known)
    strange = [module for module in lora.pairs if module not in own]
    if known and strange:
        return [] if lora.foreign and spec.pipeline_class in TRANSLATED else [strangers(lora, strange)]
    found = [_misfit(lora, module, name, shapes) for module, name in own.items()]
    if not found and not lora.flat:  # the base model is not here
        own = {module: module for module in lora.pairs}
    return [*filter(None, found), *untrained(own.values(), spec)][:_MOST]


def strangers(lora: StoredLora, modules: Sequence[str]) -> str:
    """Say that a LoRA changes modules that the base model does not have."""
    if lora.flat:
        return (
            f"The LoRA is in kohya's format, with names such as '{modules[0][:80]}' that this base model "
            "does not have and diffusers cannot translate for it. Convert it with the tool that made it."
        )
    return f"The LoRA changes '{modules[0][:80]}', which this base model does not have."


def untrained(modules: Any, spec: ModelSpec) -> list[str]:
    """Say that a LoRA changes modules that a run does not train; empty when there are none."""
    others = [m for m in modules if not any(m == t or m.endswith(f".{t}") for t in spec.lora_targets)]
    if not others:
        return []
    kinds = dict.fromkeys(".".join(module.rsplit(".", 2)[-2:]) for module in others)
    listed = f"{', '.join([*kinds][:_MOST])}{' …' if len(kinds) > _MOST else ''}"
    return [
        f"The LoRA also changes {listed}, which a run of '{spec.name}' does not train (it trains "
        f"{', '.join(spec.lora_targets)}). Save one of these alone."
    ]


def _misfit(lora: StoredLora, module: str, name: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    pair = {side: shape for side, (_, shape) in lora.pairs[module].items()}
    return module_misfit(name, pair, shapes[f"{name}.weight"])
