"""The LoRA on disk, exactly as diffusers writes and reads it.

``save_adapter`` uses the pipeline's own ``save_lora_weights``. Programs that read tensors and not diffusers'
own header take alpha for the rank, so the scale alpha / rank is multiplied into the weights and the header
says alpha = rank: the LoRA counts as much in every program. ``reload_adapter`` goes through a fresh pipeline,
so what is evaluated afterwards is the shipped file and nothing else.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from torch import Tensor

from trainers.adapter_file import WEIGHTS
from trainers.errors import FaultError, InputError
from trainers.lora_tensors import read_tensors
from trainers.models import ModelSpec
from trainers.models.base import PipelineModel, load_model
from trainers.policy import ADAPTER, Policy
from trainers.run_folder import atomic_write, write_fault
from trainers.stored_lora import read_lora


def save_adapter(policy: Policy, folder: Path) -> None:
    """Write the policy's LoRA as a diffusers adapter folder, replacing an older one as a whole file.

    Raises:
        FaultError: The disk is full or the folder cannot be written; an older adapter stays.
    """
    metadata = policy.network.peft_config[ADAPTER].to_dict() | {"lora_alpha": policy.rank}
    # peft keeps the targets in a set, whose order differs from process to process.
    metadata["target_modules"] = sorted(metadata["target_modules"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".adapter-") as staging:
            tensors = _scaled(policy.shipped_state(), policy.alpha / policy.rank)
            policy.model.save_lora(Path(staging), tensors, metadata)
            for file in Path(staging).iterdir():
                content = file.read_bytes()
                atomic_write(
                    folder / file.name, _canonical(content) if file.suffix == ".safetensors" else content
                )
    except OSError as error:
        raise write_fault(folder / WEIGHTS, error) from error


def _scaled(tensors: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Return a LoRA's tensors with a scale multiplied into the second matrix of each product B·A."""
    return {
        name: value * scale if name.endswith(".lora_B.weight") else value for name, value in tensors.items()
    }


def load_adapter(policy: Policy, file: Path) -> None:
    """Let a policy begin with a stored LoRA instead of with none.

    Its effect is kept, whatever its alpha: B is scaled by what the run's alpha / rank makes of it. Modules
    that it does not change begin as in any run.

    Args:
        policy: A policy at its beginning; its rank must be the LoRA's.
        file: What ``save_adapter`` or another tool wrote, see ``trainers.stored_lora``.

    Raises:
        InputError: The file is damaged, or its tensors are not those of the policy.
    """
    mine = policy.state()
    found = read_tensors(read_lora(file), policy.model, [_module(name) for name in mine])
    tensors = {}
    for module, part in found.items():
        factor = part.scale * policy.rank / policy.alpha
        tensors |= {f"{module}.lora_A.weight": part.down, f"{module}.lora_B.weight": part.up * factor}
    if any(name not in mine or tensor.shape != mine[name].shape for name, tensor in tensors.items()):
        raise InputError(
            "The LoRA to begin from does not have the shapes of this run's: it is of another base model, of "
            f"another rank than {policy.rank}, or changes other modules."
        )
    policy.load_state(mine | {name: tensor.to(mine[name]) for name, tensor in tensors.items()})
    policy.restart_averages()
    policy.refresh()


def _module(name: str) -> str:
    return name.rsplit(".lora_", 1)[0]


def _canonical(content: bytes) -> bytes:
    """Return a safetensors file with its header in sorted order, so that equal adapters are equal files.

    The library writes metadata in the random order of a hash map. Offsets count from the header's end, so
    only the header changes.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def reload_adapter(
    spec: ModelSpec, folder: Path, device: str, base: PipelineModel | None = None
) -> PipelineModel:
    """Return a model with the saved adapter loaded by plain diffusers.

    Args:
        spec: The base model.
        folder: The adapter.
        device: Where it goes.
        base: A loaded base model that is needed no more, when there is no room for a fresh one beside it.

    Raises:
        FaultError: The adapter is missing or damaged.
    """
    model = load_model(spec, device) if base is None else base
    try:
        model.forget_lora()
        model.load_lora(folder)
    except Exception as error:
        raise FaultError(
            f"The adapter in {folder} could not be loaded by diffusers ({type(error).__name__}: {error})."
        ) from error
    return model
