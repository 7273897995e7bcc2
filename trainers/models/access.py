"""Can a checkpoint be had? Asked before a run starts, and answered with a sentence that says what to do.

Missing, gated, unreachable and pickle-only checkpoints are found by asking the Hub for names, not by
fetching weights. What is already in the Hub's cache on this machine needs no network. Torch-free.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from trainers.errors import InputError
from trainers.models.folders import (
    INDEX,
    folder_problems,
    pickle_allowed,
    pickle_sentence,
    place_of,
)
from trainers.models.spec import ModelSpec

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
    if folder is not None:
        return folder_problems(folder, spec.name)
    cached = cached_folder(spec.location)
    if cached is not None and not folder_problems(cached, spec.name):
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
    from huggingface_hub.constants import HF_HUB_CACHE

    hub = HfApi()
    try:
        hub.auth_check(spec.location)
        files = hub.model_info(spec.location, files_metadata=True, timeout=HUB_SECONDS).siblings or []
    except Exception as error:
        return [_sentence(error, spec.name, spec.location, spec.licence)]
    names = [file.rfilename for file in files]
    if INDEX not in names:
        return [_NO_INDEX.format(name=spec.name, index=INDEX)]
    parts = {PurePosixPath(name).parts[0] for name in names if PurePosixPath(name).suffix == ".safetensors"}
    needed = parts & {"unet", "transformer"}
    if not needed and not pickle_allowed():
        return [pickle_sentence(spec.name, spec.location)]
    size = sum(file.size or 0 for file in files if _is_loaded(file.rfilename)) / 1e9
    place = Path(HF_HUB_CACHE)
    free = _free_bytes(place) / 1e9
    return [_DISK.format(name=spec.name, size=size, free=free, place=place)] if size > free else []


def _is_loaded(name: str) -> bool:
    """Whether a file is among those a pipeline is loaded from: in a part's folder, of full precision."""
    path = PurePosixPath(name)
    return len(path.parts) == 2 and path.suffix == ".safetensors" and ".fp16." not in path.name


def _free_bytes(place: Path) -> int:
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def _sentence(error: Exception, name: str, location: str, licence: str) -> str:
    """Return what to do about an error of the Hub's client, known by the names of its classes."""
    kinds = {cls.__name__ for cls in type(error).__mro__}
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if kinds & {"GatedRepoError", "DisabledRepoError"}:
        told = f" ({licence})" if licence else ""
        return _GATED.format(name=name, licence=told, page=f"{endpoint}/{location}")
    if "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        return _NO_INDEX.format(name=name, index=INDEX)
    if kinds & {"RepositoryNotFoundError", "HFValidationError", "RevisionNotFoundError"}:
        return _MISSING.format(name=name)
    why = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") == "1" else type(error).__name__
    return _UNREACHABLE.format(name=name, why=why)
