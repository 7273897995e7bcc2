"""One worker per run folder: a lock that the system itself lets go of when its holder dies, however it dies.

Whoever starts a worker may take the lock first and hand it down as an open file, named in ``LOCK_VARIABLE``;
then there is no moment at which the worker exists without it. What is left out on purpose: saying who holds
it, which is in ``status.json``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from trainers.errors import InputError
from trainers.run_folder import write_fault

LOCK_VARIABLE = "RSM_RUN_LOCK"
_PATIENCE_SECONDS = 2.0


def try_lock(folder: Path) -> int | None:
    """Return an open file that holds the folder's lock, or None while another process has it.

    Raises:
        FaultError: The folder cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise write_fault(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is created if need be, while the body runs.

    Raises:
        InputError: Another process is at work on the run, or the path is a file.
        FaultError: The folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a run needs a folder.")
    descriptor = _inherited(folder)
    patience = time.monotonic() + _PATIENCE_SECONDS
    while descriptor is None:
        descriptor = try_lock(folder)
        if descriptor is None and time.monotonic() > patience:
            raise InputError(f"The run in {folder} is still at work in another process.")
        time.sleep(0.05 if descriptor is None else 0.0)
    try:
        yield
    finally:
        os.close(descriptor)


def _inherited(folder: Path) -> int | None:
    """Return the open file that the parent handed down, if it is this folder's lock."""
    text = os.environ.pop(LOCK_VARIABLE, "")
    if not text.isdigit():
        return None
    try:
        mine, wanted = os.fstat(int(text)), os.stat(folder / ".lock")
    except OSError:
        return None
    if (mine.st_dev, mine.st_ino) != (wanted.st_dev, wanted.st_ino):
        return None
    os.set_inheritable(int(text), False)
    return int(text)
