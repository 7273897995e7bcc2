"""A path out of a person's text, or a sentence where the system knows no such path. Torch-free."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from trainers.errors import InputError


def path_of(text: str) -> Path:
    """Return the path that a text names, with ``~`` replaced; nothing need be there.

    Raises:
        InputError: No file can have that name, or it cannot be looked at: it is too long, holds a character
            that names cannot have, belongs to an unknown user or lies in a closed folder.
    """
    try:
        path = Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        shown = text if len(text) <= 80 else f"{text[:80]}…"
        raise InputError(f"'{shown}' is no path that can be used here: {reason}.") from None
    return path


def absolute(text: str) -> str:
    """Return a path from the root that means the same in every folder; errors as in ``path_of``."""
    return os.path.abspath(path_of(text))


def folder_of(variable: str, environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder that an environment variable names, from the root; None when it names none.

    Shells replace ``~`` in a variable's value; services, containers and files of settings do not.

    Args:
        variable: Its name.
        environment: Variables by name; this process's own when None.

    Raises:
        InputError: As in ``path_of``, with the variable's name.
    """
    named = (os.environ if environment is None else environment).get(variable, "").strip()
    if not named:
        return None
    try:
        return Path(absolute(named))
    except InputError as error:
        raise InputError(f"The variable {variable} cannot be used: {error}") from None
