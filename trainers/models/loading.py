"""Open a pipeline: embedded folders with their ``call.json``, own folders, and checkpoints of the Hub.

Weights are read from safetensors files only, unless ``RSM_ALLOW_PICKLE=1`` says otherwise (never on a Space).
Large checkpoints are opened in 16 bits on a GPU and in float32 on a CPU.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from trainers.assets import asset_root
from trainers.errors import FaultError, InputError, StudioError
from trainers.failures import known_cause
from trainers.importing import uncollected
from trainers.machine import gpu_precision
from trainers.models import ModelSpec
from trainers.models.access import stored
from trainers.models.folders import folder_problems, pickle_allowed, place_of
from trainers.models.levels import scheduler_problem
from trainers.models.memory import Footprint
from trainers.models.spec import load_arguments


def open_pipeline(
    spec: ModelSpec, pipeline_class: str, device: str, footprint: Footprint
) -> tuple[Any, dict[str, Any]]:
    """Return a pipeline on its device and the arguments of its normal call.

    Args:
        spec: The entry of the model table.
        pipeline_class: The diffusers class of its adapter.
        device: Where the denoiser and the autoencoder go.
        footprint: With ``offload`` the text encoders stay in main memory.

    Raises:
        InputError: The folder is incomplete or its scheduler cannot be trained.
        FaultError: It could not be read or fetched.
    """
    try:
        opened = (
            _embedded(spec, pipeline_class) if spec.embedded else _checkpoint(spec, pipeline_class, device)
        )
    except StudioError:
        raise
    except Exception as error:
        raise _fault(spec, error) from error
    pipe, call = opened
    if absent := _absent_tensor(pipe):
        raise FaultError(
            f"The weights of '{spec.name}' are incomplete: {absent} is missing, which its config.json names. "
            "Fetch it anew."
        )
    if problem := scheduler_problem(pipe.scheduler, spec.family):
        raise InputError(f"The base model '{spec.name}' cannot be trained. {problem}")
    return _placed(pipe, device, footprint), call


def _embedded(spec: ModelSpec, pipeline_class: str) -> tuple[Any, dict[str, Any]]:
    folder = locate(spec.location)
    settings = json.loads((folder / "call.json").read_text(encoding="utf-8"))
    pipe = _class_of(pipeline_class).from_pretrained(folder, **settings["load"])
    return pipe, dict(settings["call"]) | dict(spec.call)


def _checkpoint(spec: ModelSpec, pipeline_class: str, device: str) -> tuple[Any, dict[str, Any]]:
    folder = place_of(spec.location)
    if folder is not None and (found := folder_problems(folder, spec.name)):
        raise InputError(*found)
    source = str(folder) if folder is not None else spec.location
    there = stored(spec.location)
    arguments = dict.fromkeys(there.absent) | load_arguments(spec) | {"variant": there.variant}
    if not pickle_allowed():
        arguments["use_safetensors"] = True
    pipe = _class_of(pipeline_class).from_pretrained(source, dtype=precision(device), **arguments)
    return pipe, dict(spec.call)


@lru_cache
def _class_of(name: str) -> Any:
    with uncollected():
        import diffusers

        return getattr(diffusers, name)  # imports the pipeline and the text encoders' classes


def precision(device: str) -> torch.dtype:
    """Return the precision in which large checkpoints are opened."""
    if not device.startswith("cuda"):
        return torch.float32
    return gpu_precision()


def open_tiny_decoder(spec: ModelSpec, device: str, dtype: torch.dtype) -> Any:
    """Return the tiny autoencoder of the model's latents.

    Raises:
        InputError: There is none for this family.
        FaultError: It could not be read or fetched.
    """
    if not spec.tiny_vae:
        raise InputError(f"There is no tiny autoencoder for the latents of '{spec.name}'; use decoder=own.")
    from diffusers import AutoencoderTiny

    try:
        decoder = AutoencoderTiny.from_pretrained(
            spec.tiny_vae, dtype=dtype, use_safetensors=None if pickle_allowed() else True
        )
    except Exception as error:
        cause = known_cause(error) or f"It is incomplete or damaged ({type(error).__name__}: {error})."
        raise FaultError(f"The tiny autoencoder {spec.tiny_vae} could not be loaded. {cause}") from error
    return decoder.to(device).requires_grad_(False).eval()


def _placed(pipe: Any, device: str, footprint: Footprint) -> Any:
    if not footprint.offload:
        return pipe.to(device)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and not name.startswith("text_encoder"):
            part.to(device)
    return pipe


def _absent_tensor(pipe: Any) -> str | None:
    """Return the name of a tensor that no file held: such a one has a shape and no numbers."""
    for part, module in pipe.components.items():
        if isinstance(module, torch.nn.Module):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                if tensor.is_meta:
                    return f"{part}.{name}"
    return None


def _fault(spec: ModelSpec, error: Exception) -> FaultError:
    if cause := known_cause(error):
        return FaultError(f"The base model '{spec.name}' could not be loaded. {cause}")
    if isinstance(error, ImportError | AttributeError) or "has no class" in str(error):
        return FaultError(
            f"The base model '{spec.name}' needs something that is not installed here ({str(error)[:200]}). "
            "Install it, or newer releases of diffusers and transformers, or choose another checkpoint."
        )
    where, advice = spec.location, "Fetch it anew."
    if spec.embedded:
        where = str(asset_root() / spec.location)
        advice = "Restore the folder, for example from a fresh checkout."
    return FaultError(
        f"The base model '{spec.name}' in {where} could not be loaded: it is incomplete or damaged "
        f"({type(error).__name__}: {error}). {advice}"
    )


def locate(location: str) -> Path:
    """Return the folder of an embedded asset.

    Raises:
        FaultError: There is no such folder.
    """
    folder = asset_root() / location
    if not folder.is_dir():
        raise FaultError(
            f"The model folder {folder} is missing. Restore it, for example from a fresh checkout."
        )
    return folder
