"""How many tokens of a prompt a model reads. Torch-free.

A loaded model asks its own tokenizer. Before anything loads the same is known from the tokenizer's files:
those of the folder, of the Hub's cache on this machine, or, where the network may be asked, of the Hub, where
they are a small part of what will be fetched anyway.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainers.assets import asset_root
from trainers.errors import InputError
from trainers.models.access import cached_folder, fetch_index
from trainers.models.families import FAMILIES, Reads
from trainers.models.folders import INDEX, parse_index, parts_of, place_of
from trainers.models.small_files import small_file_problem
from trainers.models.spec import ModelSpec


@dataclass(frozen=True)
class Tokens:
    """Tokens of some prompts, those of begin and end included.

    Attributes:
        lengths: Of each prompt.
        limit: How many of them the model reads.
    """

    lengths: tuple[int, ...]
    limit: int


def reads_of(pipeline_class: str, present: Callable[[str], bool]) -> Reads | None:
    """Return how a pipeline reads prompts; None when it has no encoder.

    Args:
        pipeline_class: A key of ``FAMILIES``.
        present: Whether the pipeline has a part.
    """
    ways = FAMILIES[pipeline_class].reads
    return next((way for way in ways if present(way.tokenizer) and present(way.encoder)), None)


def count_tokens(tokenizer: Any, reads: Reads, call: Mapping[str, Any], prompts: Sequence[str]) -> Tokens:
    """Return the tokens of prompts.

    Args:
        tokenizer: One of transformers'.
        reads: How the pipeline uses it.
        call: Arguments of the pipeline's call.
        prompts: The prompts.
    """
    texts = [prompt.lower().strip() for prompt in prompts] if reads.lowered else list(prompts)
    rows = tokenizer(texts, truncation=False, verbose=False)["input_ids"] if texts else []
    return Tokens(tuple(map(len, rows)), _limit(tokenizer, reads, call))


def _limit(tokenizer: Any, reads: Reads, call: Mapping[str, Any]) -> int:
    if not reads.tokens:
        return tokenizer.model_max_length
    tokens = int(call.get("max_sequence_length", reads.tokens))
    if reads.around == "chat":
        empty = [{"role": "user", "content": ""}]
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": True}
        return tokens - len(tokenizer([tokenizer.apply_chat_template(empty, **options)])["input_ids"][0])
    if reads.around == "instruction" and call.get("complex_human_instruction", True):
        return tokens - 2 + len(tokenizer([""])["input_ids"][0])  # as the pipeline reckons it
    return tokens


def cut_off(name: str, prompts: Sequence[str], tokens: Tokens) -> list[str]:
    """Return a sentence for each prompt that a model would cut off."""
    told = "The prompt '{}' has {} tokens; '{}' reads {} and would cut off the rest."
    return [
        told.format(prompt[:80], length, name, tokens.limit)
        for prompt, length in zip(prompts, tokens.lengths, strict=True)
        if length > tokens.limit
    ]


def tokens_of(spec: ModelSpec, prompts: Sequence[str], ask: bool = False) -> Tokens | None:
    """Return the tokens of prompts as the loaded model would count them, from the tokenizer's files alone.

    Args:
        spec: The model.
        prompts: The prompts.
        ask: Whether the files may be fetched from the Hub.

    Returns:
        None where the files are not here or damaged, which is told by whatever loads the model.
    """
    if not spec.location:
        return None
    try:
        if spec.embedded:
            return _embedded(asset_root() / spec.location / "tokenizer", tuple(prompts))
        tokenizer, reads = _opened(spec.location, spec.pipeline_class, ask)
        return count_tokens(tokenizer, reads, spec.call, prompts) if reads else None
    except Exception:  # the libraries raise whatever a damaged file makes them do
        return None


@lru_cache(maxsize=8)
def _embedded(folder: Path, prompts: tuple[str, ...]) -> Tokens:
    """Count tokens quickly; the page asks again about the same prompts with every change of the form."""
    from tokenizers import Tokenizer  # a part of transformers, without the rest of it

    limit = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    rows = Tokenizer.from_str(text).encode_batch(list(prompts))
    return Tokens(tuple(len(row.ids) for row in rows), limit)


@lru_cache(maxsize=4)
def _opened(location: str, pipeline_class: str, ask: bool) -> tuple[Any, Reads | None]:
    """Return a checkpoint's tokenizer, loaded as its pipeline loads it, and how it is used."""
    folder = place_of(location) or cached_folder(location)
    absent = InputError(f"The tokenizer of '{location}' is not on this machine.")
    if folder is None and not ask:
        raise absent
    text = (folder / INDEX).read_text(encoding="utf-8") if folder else fetch_index(location)
    index, _ = parse_index(text, location, INDEX)
    kinds = dict(parts_of(index))
    reads = reads_of(pipeline_class, lambda part: part in kinds)
    if reads is None:
        return None, None
    part = reads.tokenizer
    family = tokenizer_class(kinds[part])
    if folder is not None and _complete(folder / part, kinds[part]):
        return family.from_pretrained(str(folder / part), local_files_only=True), reads
    if not ask or place_of(location):
        raise absent
    return family.from_pretrained(location, subfolder=part), reads


def _complete(folder: Path, kind: str) -> bool:
    """Whether a tokenizer has its vocabulary; a snapshot in the Hub's cache may lack any file yet."""
    names = [path.name for path in folder.glob("*")]
    return bool(names) and not small_file_problem(kind, names, "", "")


def tokenizer_class(kind: str) -> Any:
    """Return a class of transformers itself: one that chooses another would go by what the checkpoint says.

    Raises:
        InputError: It is none.
    """
    import transformers

    family = getattr(transformers, kind)
    known = inspect.isclass(family) and issubclass(family, transformers.PreTrainedTokenizerBase)
    if kind.startswith("Auto") or not known:
        raise InputError(f"{kind} is no tokenizer's class.")
    return family
