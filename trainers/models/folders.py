"""Checkpoint folders on disk: what they hold, and what is missing or refused, in sentences. Torch-free."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainers.bounded_json import HALF_SURROGATE, parse_json, read_json
from trainers.models.families import FAMILIES, supported
from trainers.models.part_configs import OPTIONAL, extra_parts, index_problems, needed_parts, part_problems
from trainers.models.single_file import WEIGHT_FILES, file_sentence, folder_sentence
from trainers.models.small_files import small_file_problem
from trainers.models.variants import SAFE, loaded, variant_of, variant_sentence, weight_names
from trainers.paths import path_of
from trainers.terminal import printable

INDEX = "model_index.json"
_HUB_ID = re.compile(r"(?!.*(?:--|\.\.|\.git$))\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_POINTER = b"version https://git-lfs"
MAX_CONFIG_BYTES = 4 * 2**20
_UNREADABLE = "The file {} cannot be read; fetch the model anew."
_WEIGHTLESS = re.compile(r"Scheduler$|Tokenizer(Fast)?$|Processor$|FeatureExtractor$")


def pickle_allowed() -> bool:
    """Whether weights may be unpickled, which runs whatever code they carry; never on a Space."""
    return os.environ.get("RSM_ALLOW_PICKLE") == "1" and os.environ.get("SYSTEM") != "spaces"


def looks_like_checkpoint(name: object) -> bool:
    """Whether a name is meant as a folder, a file or a Hub id rather than as an entry of the table."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    is_file = Path(name).suffix.lower() in WEIGHT_FILES
    return "/" in name or name in (".", "..") or name.startswith("~") or is_file or os.path.isdir(name)


def place_of(location: str) -> Path | None:
    """Return the path that a location names, a folder if all is well; None for a Hub id.

    Raises:
        InputError: It can be neither.
    """
    path = path_of(location)
    return path if path.exists() or not _HUB_ID.fullmatch(location) else None


def read_index(folder: Path, name: str) -> tuple[dict[str, Any], list[str]]:
    """Return a folder's ``model_index.json`` and what is wrong with it.

    Args:
        folder: The checkpoint.
        name: What the model is called in sentences.
    """
    path = folder / INDEX
    if "://" in name:
        return {}, [
            f"'{name}' is an address. Name a Hub id, such as owner/name, or a folder of this machine."
        ]
    if HALF_SURROGATE.search(str(folder)):
        return {}, [
            f"The path of the model '{printable(name)}' has bytes that are no UTF-8, at which safetensors "
            "opens no file. Give it another name."
        ]
    if folder.is_file():
        return {}, [file_sentence(folder)]
    if not folder.is_dir():
        kind = "file" if folder.suffix.lower() in WEIGHT_FILES else "folder"
        return {}, [f"There is no {kind} {folder} for the model '{name}'. Check the path."]
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}, [folder_sentence(folder, INDEX)]
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
        index = parse_json(text.encode())
    except ValueError:
        index = None
    if not isinstance(index, dict):
        return {}, [_UNREADABLE.format(place)]
    return index, _class_problems(index, name) or index_problems(index, name)


def _class_problems(index: dict[str, Any], name: str) -> list[str]:
    """Return a sentence when a pipeline's class cannot be trained."""
    found = index.get("_class_name")
    told = found if isinstance(found, str) and found else "nameless class"
    if told in FAMILIES:
        return []
    return [f"The model '{name}' is a {told}, which cannot be trained. Supported: {supported()}."]


def folder_problems(folder: Path, name: str, sized: bool = True) -> list[str]:
    """Return a sentence for each part of a folder that is missing, half fetched, refused or unfit.

    Args:
        folder: The checkpoint.
        name: What the model is called in sentences.
        sized: Whether the size of its pictures is known apart from its files.
    """
    index, found = read_index(folder, name)
    if found:
        return found
    listed = {part: _names(folder / part) for part, _ in parts_of(index)}
    for part, kind in parts_of(index):
        found += _part_problems(folder / part, kind, listed[part], name)
    variant = variant_of({part: weight_names(names) for part, names in listed.items()})
    if not found and variant is None:
        found.append(variant_sentence(name, str(folder)))
    if not found:
        for part, names in listed.items():
            found += _weight_problems(
                folder / part, loaded(weight_names(names), variant or ""), variant, name
            )
    return found or part_problems(index, lambda file: config_of(folder / file), name, sized)


def folder_variant(folder: Path, index: dict[str, Any]) -> str | None:
    """Return the variant of weights to load a complete folder with, see ``variants.variant_of``."""
    return variant_of({part: weight_names(_names(folder / part)) for part, _ in parts_of(index)})


def absent_parts(index: dict[str, Any], present: Callable[[str], bool]) -> list[str]:
    """Return the parts that a pipeline is to be loaded without.

    Either its index names an optional one that is not there (it is pruned), or it has none of an encoder that
    it could have: diffusers takes its absence for an error unless it is said.

    Args:
        index: What ``model_index.json`` says.
        present: Whether there are files of a part.
    """
    family = FAMILIES.get(str(index.get("_class_name")))
    pruned = [part for part in sorted(OPTIONAL) if named(index.get(part)) and not present(part)]
    return pruned + [part for part in (extra_parts(family) if family else ()) if not named(index.get(part))]


def sidecar(name: str) -> bool:
    """Whether a file is one that a system leaves beside others, such as macOS's ``._NAME``."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def _names(folder: Path) -> list[str]:
    """Return the names of a part's files; none where it is not there."""
    try:
        return [path.name for path in folder.iterdir() if not sidecar(path.name) and path.is_file()]
    except OSError:
        return []


def config_of(path: Path) -> dict[str, Any]:
    """Return what a small JSON file says; empty where it is missing, damaged or not small."""
    return read_json(path, MAX_CONFIG_BYTES) or {}


def named(value: object) -> bool:
    """Whether an entry of a pipeline's index names a class."""
    return isinstance(value, list) and len(value) == 2 and bool(value[1])


def parts_of(index: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each part that must be there, with its class; diffusers ignores what its class does not know."""
    family = FAMILIES.get(str(index.get("_class_name")))
    known = (*needed_parts(family), *extra_parts(family)) if family else ()
    for part, value in index.items():
        if named(value) and (part in known or not family) and part not in OPTIONAL:
            yield part, str(value[1])


def weightless(kind: str) -> bool:
    """Whether a part of this class has no weights."""
    return bool(_WEIGHTLESS.search(kind))


def _part_problems(folder: Path, kind: str, names: list[str], name: str) -> list[str]:
    """Return what a part's folder lacks, weights apart."""
    missing = "The model '{}' is incomplete: {} is missing. Fetch the rest of it."
    if not folder.is_dir():
        return [missing.format(name, folder)]
    if weightless(kind):
        return [*filter(None, [small_file_problem(kind, names, str(folder), name)])]
    if "config.json" not in names:
        return [missing.format(name, folder / "config.json")]
    if not config_of(folder / "config.json"):
        return [_UNREADABLE.format(folder / "config.json")]
    if weight_names(names):
        return []
    if any(file.endswith(SAFE) for file in names):
        return [
            f"The model '{name}' has no weights under the names that diffusers reads in {folder}: call them "
            "diffusion_pytorch_model.safetensors, or model.safetensors in a text encoder."
        ]
    if any(file.endswith(PICKLES) for file in names):
        return [] if pickle_allowed() else [pickle_sentence(name, str(folder))]
    return [f"The model '{name}' is incomplete: {folder} has no weights. Fetch the rest of it."]


def _weight_problems(folder: Path, names: list[str], variant: str | None, name: str) -> list[str]:
    """Return which of the weights that are loaded are missing or damaged."""
    found = _missing_shards(folder, set(names), variant or "", name)
    return found + [told for file in names if (told := _damage(folder / file, name))]


def _damage(path: Path, name: str) -> str:
    if whole(path):
        return ""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            return (
                f"The model '{name}' is incomplete: {path} only stands for the weights (Git LFS). Run "
                "'git lfs pull' in its folder, or fetch it anew."
            )
    return f"The model '{name}' is incomplete: {path} is cut off. Fetch it anew."


def pickle_sentence(name: str, where: str) -> str:
    """Say why pickled weights are refused."""
    return (
        f"The weights of '{name}' in {where} are pickled, and loading them could run any code. Use a "
        "checkpoint with safetensors files, or set RSM_ALLOW_PICKLE=1 if you trust it (not on a Space)."
    )


def _missing_shards(folder: Path, present: set[str], variant: str, name: str) -> list[str]:
    """Return the shards that the index of the loaded variant names and that are not there."""
    missing: set[str] = set()
    for index in folder.glob(f"*{SAFE}.index.{variant}.json" if variant else f"*{SAFE}.index.json"):
        if sidecar(index.name):
            continue
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            missing |= set(map(str, shards)) - present
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
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
