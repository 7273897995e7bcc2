"""Where this installation may write, also where the home or the application's folder cannot be written.

On a Space, in a container or under a service's account, libraries find no place for their caches and the app
none for its runs. Whatever has no writable place then lives in one folder of the system's temporary files;
what a variable names is left alone. Nothing here makes a folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def on_space(environment: Mapping[str, str] | None = None) -> bool:
    """Whether this is a Space of the Hugging Face Hub."""
    return bool((os.environ if environment is None else environment).get("SPACE_ID"))


def settle(environment: MutableMapping[str, str] | None = None) -> None:
    """Name a writable place for every cache that has none; before gradio, matplotlib or a hub is imported.

    Args:
        environment: Variables by name; this process's own when None. Those that are set stay.
    """
    environment = os.environ if environment is None else environment
    home = os.path.expanduser("~")
    caches = environment.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    usual = {
        "HF_HOME": (os.path.join(caches, "huggingface"), "huggingface"),
        "MPLCONFIGDIR": (os.path.join(home, ".config", "matplotlib"), "matplotlib"),
        "TORCHINDUCTOR_CACHE_DIR": (os.path.join(home, ".cache"), "torchinductor"),
        "GRADIO_TEMP_DIR": (os.path.join(tempfile.gettempdir(), "gradio"), "gradio"),
    }
    for variable, (place, name) in usual.items():
        if not environment.get(variable) and not can_write(place):
            environment[variable] = str(scratch() / name)


def runs_directory(environment: Mapping[str, str] | None = None, app: Path = ROOT) -> Path:
    """Return where runs live: ``RSM_RUNS_DIR``, else ``runs/`` beside the app, else among temporary files.

    Args:
        environment: Variables by name; this process's own when None.
        app: The application's folder.
    """
    named = (os.environ if environment is None else environment).get("RSM_RUNS_DIR")
    beside = app / "runs"
    return Path(named) if named else beside if can_write(beside) else scratch() / "runs"


def scratch() -> Path:
    """Return this user's folder among the system's temporary files."""
    return Path(tempfile.gettempdir()) / f"rsm-studio-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def can_write(place: str | os.PathLike) -> bool:
    """Whether a folder can be written, or made where it is missing.

    The answer is tried, not looked up: permissions alone know nothing of read-only file systems.
    """
    folder = Path(place)
    if not folder.is_absolute():
        return False
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            return True
    except OSError:
        return False
