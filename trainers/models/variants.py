"""Weights that a checkpoint has in 16 bits only: diffusers loads them when told so. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

SAFE = ".safetensors"
VARIANTS = ("", "bf16", "fp16")  # the first is full precision, and the first that covers every part is taken
_SHARD = r"(?:-\d+-of-\d+)?"
_READ = re.compile(rf"(?:diffusion_pytorch_model|model){_SHARD}(?:\.\w+)?{_SHARD}\.safetensors")
_TAG = re.compile(r"\.(\w+)(?:-\d+-of-\d+)?\.safetensors$")


def weight_names(names: Iterable[str]) -> list[str]:
    """Return the files among some that diffusers and transformers take weights from, by their names."""
    return [name for name in names if name.endswith(SAFE) and _READ.fullmatch(name.rpartition("/")[2])]


def tag_of(name: str) -> str:
    """Return the variant that a weight file's name tells; empty for plain weights."""
    found = _TAG.search(name)
    return found[1] if found else ""


def variant_of(parts: Mapping[str, Sequence[str]]) -> str | None:
    """Return the variant to load a pipeline with; None when its parts have none in common.

    Args:
        parts: Part → names of its files; parts without safetensors files do not count.
    """
    tags = [{tag_of(name) for name in names if name.endswith(SAFE)} for names in parts.values()]
    covers = (variant for variant in VARIANTS if all("" in own or variant in own for own in tags if own))
    return next(covers, None)


def loaded(names: Sequence[str], variant: str) -> list[str]:
    """Return the weight files of one part that are loaded: of the variant, else the plain ones."""
    safe = [name for name in names if name.endswith(SAFE)]
    return [name for name in safe if tag_of(name) == variant] or [n for n in safe if not tag_of(n)]


def variant_sentence(name: str, where: str) -> str:
    """Say that a checkpoint's weights are of variants that cannot be loaded."""
    return (
        f"The model '{name}' in {where} has no plain weights, nor all of its parts as bf16 or all as fp16. "
        "Choose a checkpoint that has."
    )
