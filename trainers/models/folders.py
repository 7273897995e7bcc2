"""Checkpoint folders on disk: what they hold, and what is missing or refused, in sentences. Torch-free."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainers.models.families import FAMILIES, supported
from trainers.models.variants import variant_of, variant_sentence
from trainers.paths import path_of

INDEX = "model_index.json"
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Parts that a text-to-image call does without; they are not loaded or may be absent.
_OPTIONAL = frozenset(("safety_checker", "feature_extractor", "image_encoder"))
_UNREADABLE = "The file {} cannot be read; fetch the model anew."
_WEIGHTLESS = re.compile(r"Scheduler$|Tokenizer(Fast)?$|Processor$|FeatureExtractor$")


def pickle_allowed() -> bool:
    """Whether weights may be unpickled, which runs whatever code they carry; never on a Space."""
    return os.environ.get("RSM_ALLOW_PICKLE") == "1" and os.environ.get("SYSTEM") != "spaces"


def looks_like_checkpoint(name: object) -> bool:
    """Whether a name is meant as a folder or a Hub id rather than as an entry of the table."""
    return isinstance(name, str) and ("/" in name or name in (".", "..") or name.startswith("~"))


def place_of(location: str) -> Path | None:
    """Return the folder that a location names; None for a Hub id.

    Raises:
        InputError: It can be neither.
    """
    path = path_of(location)
    if path.is_dir() or not _HUB_ID.fullmatch(location):
        return path
    return None


def read_index(folder: Path, name: str) -> tuple[dict[str, Any], list[str]]:
    """Return a folder's ``model_index.json`` and what is wrong with it.

    Args:
        folder: The checkpoint.
        name: What the model is called in sentences.
    """
    path = folder / INDEX
    if not folder.is_dir():
        return {}, [f"There is no folder {folder} for the model '{name}'. Check the path."]
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}, [
            f"The model folder {folder} has no {INDEX}, so it is no diffusers pipeline. Name the folder that "
            "holds the pipeline, or convert the checkpoint to diffusers first."
        ]
    except OSError:
        return {}, [_UNREADABLE.format(path)]
    return parse_index(text, name, str(path))


def parse_index(text: str, name: str, place: str) -> tuple[dict[str, Any], list[str]]:
    """Return what the text of a ``model_index.json`` says, and what is wrong with it.

    Args:
        text: The file's.
        name: What the model is called in sentences.
        place: What the file is called there.
    """
    try:
        index = json.loads(text)
    except (ValueError, RecursionError):
        index = None
    if not isinstance(index, dict):
        return {}, [_UNREADABLE.format(place)]
    return index, _class_problems(index, name)


def _class_problems(index: dict[str, Any], name: str) -> list[str]:
    """Return a sentence when a pipeline's class cannot be trained."""
    found = index.get("_class_name")
    told = found if isinstance(found, str) and found else "nameless class"
    if told in FAMILIES:
        return []
    return [f"The model '{name}' is a {told}, which cannot be trained. Supported: {supported()}."]


def folder_problems(folder: Path, name: str) -> list[str]:
    """Return a sentence for each part of a folder that is missing, half fetched or refused."""
    index, found = read_index(folder, name)
    if found:
        return found
    for part, kind in parts_of(index):
        found += _part_problems(folder / part, kind, name)
    if not found and folder_variant(folder, index) is None:
        found.append(variant_sentence(name, str(folder)))
    return found


def folder_variant(folder: Path, index: dict[str, Any]) -> str | None:
    """Return the variant of weights to load a complete folder with, see ``variants.variant_of``."""
    return variant_of(
        {
            part: [path.name for path in (folder / part).iterdir()]
            for part, _ in parts_of(index)
            if (folder / part).is_dir()
        }
    )


def parts_of(index: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each part that must be there, with its class."""
    for part, value in index.items():
        if part.startswith("_") or part in _OPTIONAL:
            continue
        if isinstance(value, list) and len(value) == 2 and value[1]:
            yield part, str(value[1])


def weightless(kind: str) -> bool:
    """Whether a part of this class has no weights."""
    return bool(_WEIGHTLESS.search(kind))


def _part_problems(folder: Path, kind: str, name: str) -> list[str]:
    if not folder.is_dir():
        return [f"The model '{name}' is incomplete: {folder} is missing. Fetch the rest of it."]
    if weightless(kind):
        return []
    if not (folder / "config.json").is_file():
        return [
            f"The model '{name}' is incomplete: {folder / 'config.json'} is missing. Fetch the rest of it."
        ]
    files = [path for path in folder.iterdir() if path.is_file()]
    safe = [path for path in files if path.suffix == ".safetensors"]
    if safe:
        return _missing_shards(folder, safe, name) + [
            f"The model '{name}' is incomplete: {path} is cut off. Fetch it anew."
            for path in safe
            if not whole(path)
        ]
    if any(path.suffix in PICKLES for path in files):
        return [] if pickle_allowed() else [pickle_sentence(name, str(folder))]
    return [f"The model '{name}' is incomplete: {folder} has no weights. Fetch the rest of it."]


def pickle_sentence(name: str, where: str) -> str:
    """Say why pickled weights are refused."""
    return (
        f"The weights of '{name}' in {where} are pickled, and loading them could run any code. Use a "
        "checkpoint with safetensors files, or set RSM_ALLOW_PICKLE=1 if you trust it (not on a Space)."
    )


def _missing_shards(folder: Path, present: list[Path], name: str) -> list[str]:
    names = {path.name for path in present}
    missing: set[str] = set()
    for index in folder.glob("*.safetensors.index*.json"):
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            missing |= set(map(str, shards)) - names
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            missing.add(index.name)
    return [
        f"The model '{name}' is incomplete: {folder / shard} is missing. Fetch the rest of it."
        for shard in sorted(missing)
    ]


def whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        return path.stat().st_size == 8 + size + max(ends, default=0)
    except (OSError, ValueError, KeyError, IndexError, TypeError, MemoryError, OverflowError):
        return False
