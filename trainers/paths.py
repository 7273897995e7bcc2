"""A path out of a person's text, or a sentence where the system knows no such path. Torch-free."""

from __future__ import annotations

import contextlib
import os
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
