"""Write pipelines as small folders that plain diffusers or transformers load.

Weights are stored in float16 (half the size); ``call.json`` holds the keyword arguments to load and to call
with. transformers takes a text encoder's dtype from its ``config.json``, so that file says float32, which is
how the rest of the pipeline loads. A folder is written beside its target and then renamed, so readers never
see half of one.
"""

from __future__ import annotations

import json
import os
import shutil
from copy import deepcopy
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import nn


def save_pipeline(pipeline: DiffusionPipeline, folder: Path, call: dict) -> None:
    """Save a float16 copy of a pipeline and its ``call.json``, atomically."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    copies = {name: _half(part) for name, part in pipeline.components.items()}
    if "safety_checker" in copies:
        copies["requires_safety_checker"] = False
    type(pipeline)(**copies).save_pretrained(partial)
    for config in partial.glob("text_encoder*/config.json"):
        set_float32(config)
    (partial / "call.json").write_text(json.dumps(call, indent=2) + "\n")
    replace_folder(partial, folder)


def _half(part: object) -> object:
    # contiguous: channels_last weights would be stored in another order than their shape says.
    if not isinstance(part, nn.Module):
        return part
    copy = deepcopy(part).half()
    for parameter in copy.parameters():
        parameter.data = parameter.data.contiguous(memory_format=torch.contiguous_format)
    return copy


def set_float32(config: Path) -> None:
    """Make transformers load float16 weights as float32."""
    values = json.loads(config.read_text())
    values.pop("torch_dtype", None)
    values["dtype"] = "float32"
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def replace_folder(source: Path, target: Path) -> None:
    """Rename a finished folder into place; a README.md already in the target is kept."""
    card = target / "README.md"
    if card.exists() and not (source / "README.md").exists():
        shutil.copy2(card, source / "README.md")
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(source, target)
    shutil.rmtree(old, ignore_errors=True)
