"""A folder or Hub id typed by a person becomes an entry of the model table. Torch-free.

Only ``model_index.json`` is read, from the folder, the Hub's cache on this machine, or the Hub.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from trainers.errors import InputError
from trainers.models.access import fetch_index
from trainers.models.folders import INDEX, looks_like_checkpoint, parse_index, place_of, read_index
from trainers.models.spec import ModelSpec, checkpoint


def recognise(name: str) -> ModelSpec:
    """Return an entry for a folder or a Hub id.

    Raises:
        InputError: It is not there, cannot be reached, or is of a class that cannot be trained.
    """
    folder = place_of(name)
    if folder is not None:
        index, found = read_index(folder, name)
        location = str(folder.resolve())
    else:
        location = name
        index, found = parse_index(_hub_index(name), name, f"{INDEX} of {name}")
    if found:
        raise InputError(*found)
    title = Path(name).name
    return checkpoint(name, location, index["_class_name"], title=title)


def located(name: str) -> str:
    """Return a model's name with a folder named from the root, to mean the same everywhere."""
    folder = place_of(name) if looks_like_checkpoint(name) else None
    return str(folder.resolve()) if folder is not None and folder.is_dir() else name


@lru_cache(maxsize=64)
def _hub_index(name: str) -> str:
    """Return the text of a Hub model's index; asked for once in a process."""
    return fetch_index(name)
