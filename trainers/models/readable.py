"""Which prompts a model would cut off. Torch-free.

A loaded model asks its own tokenizer. For the embedded ones that is known before anything loads, from the
tokenizer's files, which other checkpoints may not have here yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from trainers.assets import asset_root
from trainers.models.spec import ModelSpec


def cut_off(name: str, prompts: Sequence[str], lengths: Sequence[int], limit: int) -> list[str]:
    """Return a sentence for each prompt that is too long.

    Args:
        name: The model.
        prompts: The prompts.
        lengths: Their tokens, those of begin and end included.
        limit: How many tokens the model reads.
    """
    return [
        f"The prompt '{prompt[:80]}' has {length} tokens; '{name}' reads {limit} and would cut off the rest."
        for prompt, length in zip(prompts, lengths, strict=True)
        if length > limit
    ]


def embedded_problems(spec: ModelSpec, prompts: Sequence[str]) -> list[str]:
    """Return what ``cut_off`` says about an embedded model, without loading it; nothing about another."""
    if not spec.embedded:
        return []
    folder = asset_root() / spec.location / "tokenizer"
    try:
        limit = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
        lengths = _lengths(folder / "tokenizer.json", tuple(prompts))
    except (OSError, ValueError, KeyError):  # a damaged folder is told by whatever loads the model
        return []
    return cut_off(spec.name, prompts, lengths, limit)


@lru_cache(maxsize=8)
def _lengths(path: Path, prompts: tuple[str, ...]) -> list[int]:
    """Count tokens; the page asks again about the same prompts with every change of the form."""
    from tokenizers import Tokenizer  # a part of transformers, without the rest of it

    text = path.read_text(encoding="utf-8")
    return [len(row.ids) for row in Tokenizer.from_str(text).encode_batch(list(prompts))]
