"""Can a checkpoint be had? Asked before a run starts, and answered with a sentence that says what to do.

Missing, gated, unreachable and pickle-only checkpoints are found by asking the Hub for names, not by
fetching weights. What is already in the Hub's cache on this machine needs no network. Torch-free.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trainers.errors import InputError
from trainers.models.folders import (
    INDEX,
    MAX_CONFIG_BYTES,
    PICKLES,
    absent_parts,
    config_of,
    folder_problems,
    folder_variant,
    parse_index,
    parts_of,
    pickle_allowed,
    pickle_sentence,
    place_of,
    read_index,
    sidecar,
    weightless,
)
from trainers.models.part_configs import part_problems
from trainers.models.small_files import small_file_problem
from trainers.models.spec import ModelSpec
from trainers.models.variants import SAFE, loaded, variant_of, variant_sentence, weight_names

HUB_SECONDS = 10.0
_GATED = (
    "The model '{name}' is gated: accept its licence{licence} at {page}, then sign in here with "
    "'hf auth login' and a token that may read it."
)
_NO_INDEX = "The model '{name}' has no {index}, so it is no diffusers pipeline. Choose one that has."
_MISSING = (
    "The model '{name}' was not found on the Hub, or it is private. Check the name; for a private one sign "
    "in with 'hf auth login'."
)
_UNREACHABLE = (
    "The model '{name}' is not on this machine and the Hub cannot be reached ({why}). Check the connection, "
    "or name a folder that holds the model."
)
_DISK = (
    "The model '{name}' takes {size:.0f} GB and {free:.0f} GB are free in {place}. Free some space, or set "
    "HF_HOME."
)


def access_problems(spec: ModelSpec, ask: bool = True) -> list[str]:
    """Return what keeps a model from being loaded here; empty when nothing is known to.

    Args:
        spec: An entry of the model table; embedded ones are not looked at.
        ask: Whether the Hub may be asked.
    """
    if spec.embedded:
        return []
    folder = place_of(spec.location)
    sized = "height" in spec.call
    if folder is not None:
        return folder_problems(folder, spec.name, sized)
    cached = cached_folder(spec.location)
    if cached is not None and not folder_problems(cached, spec.name, sized):
        return []
    return _hub_problems(spec) if ask else []


def cached_folder(location: str) -> Path | None:
    """Return the folder of a checkpoint in the Hub's cache on this machine, however complete it is."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(location, INDEX)
    return Path(found).parent if isinstance(found, str) else None


def fetch_index(location: str) -> str:
    """Return the text of a checkpoint's ``model_index.json`` from the cache or the Hub.

    Raises:
        InputError: It is not there, gated, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, hf_hub_download

    cached = cached_folder(location)
    try:
        if cached is None:
            HfApi().auth_check(location)  # asks once, where a download would try for half a minute
        path = cached / INDEX if cached else hf_hub_download(location, INDEX, etag_timeout=HUB_SECONDS)
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except Exception as error:
        raise InputError(_sentence(error, location, location, "")) from error


def _hub_problems(spec: ModelSpec) -> list[str]:
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.auth_check(spec.location)
        files = hub.model_info(spec.location, files_metadata=True, timeout=HUB_SECONDS).siblings or []
    except Exception as error:
        return [_sentence(error, spec.name, spec.location, spec.licence)]
    sizes = {file.rfilename: file.size or 0 for file in files}
    names = list(sizes)
    if INDEX not in names:
        return [_NO_INDEX.format(name=spec.name, index=INDEX)]
    try:
        index, found = parse_index(fetch_index(spec.location), spec.name, f"{INDEX} of {spec.location}")
    except InputError as error:
        return list(error.problems)
    parts = _files_of(names, index)
    found += [told for part in parts if (told := _part_problem(spec, part, parts[part]))]
    found += [told for told in _small_file_problems(spec, names, index) if told]
    variant = variant_of({part: weight_names(names) for part, names in parts.items()})
    if not found and variant is None:
        found.append(variant_sentence(spec.name, spec.location))
    if not found:
        sized = "height" in spec.call
        found += part_problems(index, _HubConfigs(spec.location, sizes), spec.name, sized)
    return found or _room_problems(spec, parts, variant, sizes)


def _files_of(names: list[str], index: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the paths of the files of each part that has weights."""
    parts: dict[str, list[str]] = {part: [] for part, kind in parts_of(index) if not weightless(kind)}
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder in parts and file and not sidecar(file):
            parts[folder].append(name)
    return parts


def _small_file_problems(spec: ModelSpec, names: list[str], index: Mapping[str, Any]) -> Iterator[str]:
    for part, kind in parts_of(index):
        within = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        yield small_file_problem(kind, within, f"{spec.location}/{part}", spec.name)


def _part_problem(spec: ModelSpec, part: str, names: list[str]) -> str | None:
    if any(name.endswith(SAFE) for name in names):
        return None
    if any(PurePosixPath(name).suffix in PICKLES for name in names):
        return None if pickle_allowed() else pickle_sentence(spec.name, spec.location)
    return f"The model '{spec.name}' is incomplete on the Hub: its {part} has no weights. Choose another one."


def _room_problems(
    spec: ModelSpec, parts: Mapping[str, list[str]], variant: str | None, sizes: Mapping[str, int]
) -> list[str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    size = sum(sizes[name] for names in parts.values() for name in loaded(names, variant or "")) / 1e9
    place = Path(HF_HUB_CACHE)
    free = _free_bytes(place) / 1e9
    return [_DISK.format(name=spec.name, size=size, free=free, place=place)] if size > free else []


@dataclass(frozen=True)
class Stored:
    """What a checkpoint has of what it may have.

    Attributes:
        variant: The variant of weights to load it with; None for the plain ones.
        absent: Optional parts that its index names and that are not there.
    """

    variant: str | None = None
    absent: tuple[str, ...] = ()


def stored(location: str) -> Stored:
    """Return what is there of a checkpoint.

    Args:
        location: A folder, or a Hub id, whose names are asked for where the cache does not hold all of it.
    """
    folder = place_of(location) or cached_folder(location)
    if folder is not None and not folder_problems(folder, location):
        index, _ = read_index(folder, location)
        absent = absent_parts(index, lambda part: (folder / part).is_dir())
        return Stored(folder_variant(folder, index) or None, tuple(absent))
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(location, timeout=HUB_SECONDS).siblings or []
        index, _ = parse_index(fetch_index(location), location, INDEX)
    except Exception:  # loading will meet it too, and says what to do
        return Stored()
    names = [file.rfilename for file in files]
    parts = {part: weight_names(found) for part, found in _files_of(names, index).items()}
    absent = absent_parts(index, lambda part: any(name.startswith(f"{part}/") for name in names))
    return Stored(variant_of(parts) or None, tuple(absent))


class _HubConfigs:
    """What the small files of a checkpoint on the Hub say; nothing from the first that cannot be had on."""

    def __init__(self, location: str, sizes: Mapping[str, int]):
        self._location, self._sizes = location, sizes
        self._known: dict[str, dict[str, Any]] = {}
        self._silent = False

    def __call__(self, file: str) -> dict[str, Any]:
        if file not in self._known:
            self._known[file] = self._fetched(file)
        return self._known[file]

    def _fetched(self, file: str) -> dict[str, Any]:
        from huggingface_hub import hf_hub_download

        if self._silent or self._sizes.get(file, MAX_CONFIG_BYTES + 1) > MAX_CONFIG_BYTES:
            return {}
        try:
            return config_of(Path(hf_hub_download(self._location, file, etag_timeout=HUB_SECONDS)))
        except Exception:  # loading will meet it too, and says what to do
            self._silent = True
            return {}


def _free_bytes(place: Path) -> int:
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def _sentence(error: Exception, name: str, location: str, licence: str) -> str:
    """Return what to do about an error of the Hub's client, known by the names of its classes."""
    from huggingface_hub import constants

    kinds = {cls.__name__ for cls in type(error).__mro__}
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if kinds & {"GatedRepoError", "DisabledRepoError"}:
        told = f" ({licence})" if licence else ""
        return _GATED.format(name=name, licence=told, page=f"{endpoint}/{location}")
    if "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        return _NO_INDEX.format(name=name, index=INDEX)
    if kinds & {"RepositoryNotFoundError", "HFValidationError", "RevisionNotFoundError"}:
        return _MISSING.format(name=name)
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else type(error).__name__
    return _UNREACHABLE.format(name=name, why=why)
