"""What a path holds that is no pipeline folder: a single-file checkpoint, a LoRA, a part, or nothing.

Each is answered with a sentence that says what to name instead. Torch-free.
"""

from __future__ import annotations

import json
from pathlib import Path

WEIGHT_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft")
LORA_FILES = ("adapter_config.json", "pytorch_lora_weights.safetensors")
MAX_HEADER_BYTES = 32 * 2**20
# The first of these that begins a tensor's name tells the class that reads the file.
_MARKS = (
    ("conditioner.embedders.1.", "StableDiffusionXLPipeline"),
    ("cond_stage_model.", "StableDiffusionPipeline"),
    ("model.diffusion_model.joint_blocks.", "StableDiffusion3Pipeline"),
    ("double_blocks.", "FluxPipeline"),
    ("model.diffusion_model.double_blocks.", "FluxPipeline"),
)
_LORA = (".lora_", ".lora.", "lora_A", "hada_w", "lokr_w")


def file_sentence(path: Path) -> str:
    """Say what to do with a file where a pipeline's folder is needed."""
    if path.suffix.lower() not in WEIGHT_FILES:
        return f"{path} is a file, and the folder of a diffusers pipeline is needed. Name that folder."
    names = tensor_names(path)
    if any(mark in name for name in names for mark in _LORA):
        return lora_sentence(path)
    kinds = [kind for mark, kind in _MARKS if any(name.startswith(mark) for name in names)]
    kind, others = (kinds[0], "") if kinds else ("StableDiffusionPipeline", " (or the class of its family)")
    convert = f"{kind}.from_single_file('{path.name}').save_pretrained('{path.stem}')"
    return (
        f"{path} is a single-file checkpoint, and the folder of a diffusers pipeline is needed. Convert it "
        f"with diffusers' {convert}{others}, then name that folder."
    )


def lora_sentence(path: Path) -> str:
    """Say what to do with a LoRA where a base model is needed."""
    return (
        f"{path} is a LoRA, no base model. Name the model that it was made for, and begin from the LoRA with "
        "--from-adapter."
    )


def folder_sentence(folder: Path, index: str) -> str:
    """Say what a folder without a pipeline's index holds instead, and what to name.

    Args:
        folder: What was named.
        index: The name of the file that is not there.
    """
    lacks = f"The model folder {folder} has no {index}, so it is no diffusers pipeline."
    if (folder.parent / index).is_file():
        return f"{lacks} It is one part of {folder.parent}; name that folder."
    if any((folder / name).is_file() for name in LORA_FILES):
        return lora_sentence(folder)
    if within := next(iter(sorted([*folder.glob(f"*/{index}"), *folder.glob(f"snapshots/*/{index}")])), None):
        return f"{lacks} There is one in it: name {within.parent}."
    single = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in WEIGHT_FILES[:2]]
    if single := [path for path in single if not path.name.startswith(".")]:
        return f"{lacks} {file_sentence(single[0])}"
    return f"{lacks} Name the folder that holds the pipeline, or convert the checkpoint to diffusers first."


def tensor_names(path: Path) -> list[str]:
    """Return the names of a safetensors file's tensors; none where it cannot be read as one."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= MAX_HEADER_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return []
    return [str(name) for name in header] if isinstance(header, dict) else []
