"""Where this installation may write, also where the home or the application's folder cannot be written.

On a Space, in a container or under a service's account, libraries find no place for their caches and the app
none for its runs. Whatever has no writable place then lives in one folder of the system's temporary files;
what a variable names is used as it is, with ``~`` replaced. Nothing here makes a folder.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from trainers.errors import InputError
from trainers.paths import folder_of

ROOT = Path(__file__).resolve().parents[2]
# Variables of this project and of its libraries that name a folder, most of which replace no ``~``.
FOLDERS = (
    *(
        "TMPDIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "RSM_RUNS_DIR",
        "RSM_ASSETS",
        "RSM_WEIGHTS",
        "RSM_CACHE",
    ),
    *("HF_HOME", "HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE", "GRADIO_TEMP_DIR", "MPLCONFIGDIR"),
    *("TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
)
NO_TEMPORARY = (
    "No folder for temporary files can be written here. Let this user write to one, and name it in TMPDIR."
)


def on_space(environment: Mapping[str, str] | None = None) -> bool:
    """Whether this is a Space of the Hugging Face Hub."""
    return bool((os.environ if environment is None else environment).get("SPACE_ID"))


def settle(environment: MutableMapping[str, str] | None = None) -> None:
    """Name a writable place for every cache that has none; before gradio, matplotlib or a hub is imported.

    Args:
        environment: Variables by name; this process's own when None. Those that are set stay, as paths from
            the root: workers have another working folder.

    Raises:
        InputError: A variable names what no folder can be called, or one that uploads need and nobody can
            write; or there is no place for temporary files.
    """
    environment = os.environ if environment is None else environment
    for variable in FOLDERS:
        if folder := folder_of(variable, environment):
            environment[variable] = str(folder)
    home = os.path.expanduser("~")
    caches = environment.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    usual = {
        "HF_HOME": (os.path.join(caches, "huggingface"), "huggingface"),
        "MPLCONFIGDIR": (os.path.join(home, ".config", "matplotlib"), "matplotlib"),
        "TORCHINDUCTOR_CACHE_DIR": (os.path.join(home, ".cache"), "torchinductor"),
        "GRADIO_TEMP_DIR": (os.path.join(_temporary(), "gradio"), "gradio"),
    }
    for variable, (place, name) in usual.items():
        if not environment.get(variable) and not can_write(place):
            environment[variable] = str(scratch() / name)
    if not environment.get("TORCHINDUCTOR_CACHE_DIR") and not _has_name():
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(scratch() / "torchinductor")  # torch would ask for it
    named = environment.get("GRADIO_TEMP_DIR")
    if named and not can_write(named):
        raise InputError(
            f"The folder {named}, which GRADIO_TEMP_DIR names for uploads and pictures, cannot be written. "
            "Let this user write to it, or name another one."
        )


def runs_directory(environment: Mapping[str, str] | None = None, app: Path = ROOT) -> Path:
    """Return where runs live: ``RSM_RUNS_DIR``, else ``runs/`` beside the app, else among temporary files.

    Args:
        environment: Variables by name; this process's own when None.
        app: The application's folder.

    Raises:
        InputError: The variable names what no folder can be called.
    """
    beside = app / "runs"
    named = folder_of("RSM_RUNS_DIR", environment)
    return named or (beside if can_write(beside) else scratch() / "runs")


def scratch() -> Path:
    """Return this user's folder among the system's temporary files.

    Raises:
        InputError: There is no place for them.
    """
    return Path(_temporary()) / f"rsm-studio-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


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


def _temporary() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        raise InputError(NO_TEMPORARY) from None


def _has_name() -> bool:
    """Whether this user has a name; a container's user may be a number without an entry among the users."""
    try:
        return bool(getpass.getuser())
    except (KeyError, OSError):
        return False
