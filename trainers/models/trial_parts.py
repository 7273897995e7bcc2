"""Every part of a pipeline made from its small files alone: what a class refuses is known without weights.

Schedulers and tokenizers are really made, networks on the meta device, where they take no memory. The shapes
that ``config.json`` gives are held against the headers of the weights. It takes seconds, nearly all of them
for importing the libraries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainers.adapter_file import network_shapes
from trainers.errors import InputError
from trainers.models.access import cached_folder
from trainers.models.folders import INDEX, config_of, folder_problems, parts_of, place_of, weightless
from trainers.models.readable import tokenizer_class
from trainers.models.spec import ModelSpec

_EARLIER = re.compile(r"\.(?:query|key|value|proj_attn)\.(?:weight|bias)$")
_MOST_TOKENS = 10**6  # transformers' stand-in for "no limit" is far above


def part_trials(spec: ModelSpec) -> list[str]:
    """Return why parts of a checkpoint on this machine cannot be made, a sentence each; at most three.

    Args:
        spec: The model. Embedded ones, and those of the Hub that are not wholly here, are not looked at.
    """
    folder = None if spec.embedded else place_of(spec.location) or cached_folder(spec.location)
    if folder is None or folder_problems(folder, spec.name, "height" in spec.call):
        return []
    return [sentence for _, sentence in zip(range(3), _problems(folder, spec.name), strict=False)]


def _problems(folder: Path, name: str) -> Iterator[str]:
    from trainers.machine import quiet_libraries

    quiet_libraries()
    index = config_of(folder / INDEX)
    for part, kind in parts_of(index):
        try:
            made = _made(index[part][0], kind, folder / part)
            problem = "" if weightless(kind) else _misfit(made, folder / part)
        except InputError as error:
            problem = str(error)
        except Exception as error:  # the libraries raise whatever a wrong value makes them do
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if problem:
            yield f"The {part} of '{name}' cannot be made from its files ({problem}). Fetch it anew."


def _made(library: str, kind: str, folder: Path) -> Any:
    import diffusers
    import torch
    import transformers

    if kind.endswith("Scheduler"):
        scheduler = getattr(diffusers, kind).from_pretrained(str(folder), local_files_only=True)
        if not scheduler.config.get("use_dynamic_shifting"):  # which needs the size of an image
            scheduler.set_timesteps(4)
        return scheduler
    if "Tokenizer" in kind:
        tokenizer = tokenizer_class(kind).from_pretrained(str(folder), local_files_only=True)
        if kind.startswith("CLIP") and tokenizer.model_max_length > _MOST_TOKENS:
            raise InputError("its tokenizer_config.json has no model_max_length")
        tokenizer(["a"], padding="max_length", max_length=8)
        return tokenizer
    made = getattr(diffusers if library == "diffusers" else transformers, kind)
    with torch.device("meta"):
        if library == "diffusers":
            return made.from_config(made.load_config(str(folder), local_files_only=True))
        return made(made.config_class.from_pretrained(str(folder), local_files_only=True))


def _misfit(made: Any, folder: Path) -> str:
    """Say where the weights of a network have another shape, or one is missing; as far as names tell."""
    stored = network_shapes(folder)
    wanted = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
    for name, shape in wanted.items():
        if name in stored and stored[name] != shape:
            return f"{name} is {shape} by config.json and {stored[name]} in the weights"
    # transformers renames tensors and ties some, and diffusers renames those of earlier attention blocks.
    renamed = not type(made).__module__.startswith("diffusers.") or any(map(_EARLIER.search, stored))
    missing = [] if renamed else [name for name in wanted if name not in stored]
    return f"{missing[0]} is missing in the weights" if missing else ""
