"""The LoRA on disk, exactly as diffusers writes and reads it.

``save_adapter`` uses the pipeline's own ``save_lora_weights`` with the adapter's metadata, without which
diffusers would reload the LoRA with alpha = rank. ``reload_adapter`` goes through a fresh pipeline, so what
is evaluated afterwards is the shipped file and nothing else.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from trainers.errors import FaultError
from trainers.models import ModelSpec
from trainers.models.base import PipelineModel, load_model
from trainers.policy import ADAPTER, Policy
from trainers.run_folder import atomic_write, write_fault

WEIGHTS = "pytorch_lora_weights.safetensors"


def save_adapter(policy: Policy, folder: Path) -> None:
    """Write the policy's LoRA as a diffusers adapter folder, replacing an older one as a whole file.

    Raises:
        FaultError: The disk is full or the folder cannot be written; an older adapter stays.
    """
    model = policy.model
    name = model.network_name
    metadata = policy.network.peft_config[ADAPTER].to_dict()
    # peft keeps the targets in a set, whose order differs from process to process.
    metadata["target_modules"] = sorted(metadata["target_modules"])
    arguments = {f"{name}_lora_layers": policy.state(), f"{name}_lora_adapter_metadata": metadata}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".adapter-") as staging:
            type(model.pipe).save_lora_weights(staging, safe_serialization=True, **arguments)
            for file in Path(staging).iterdir():
                atomic_write(folder / file.name, _canonical(file.read_bytes()))
    except OSError as error:
        raise write_fault(folder / WEIGHTS, error) from error


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


def reload_adapter(spec: ModelSpec, folder: Path, device: str) -> PipelineModel:
    """Return a fresh model with the saved adapter loaded by plain diffusers.

    Raises:
        FaultError: The adapter is missing or damaged.
    """
    model = load_model(spec, device)
    try:
        model.pipe.load_lora_weights(folder)
    except Exception as error:
        raise FaultError(
            f"The adapter in {folder} could not be loaded by diffusers ({type(error).__name__}: {error})."
        ) from error
    return model
