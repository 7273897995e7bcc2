"""One worker per run folder: a lock that the system itself lets go of when its holder dies, however it dies.

What is left out on purpose: saying who holds it, which is in ``status.json``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from trainers.errors import BusyError, InputError
from trainers.run_folder import write_fault

_PATIENCE_SECONDS = 2.0  # the system takes a moment to clear away a worker that was just killed


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
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise write_fault(path, error) from error
    return descriptor


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is created if need be, while the body runs.

    Raises:
        BusyError: Another process is at work on the run.
        InputError: The path is a file.
        FaultError: The folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a run needs a folder.")
    descriptor = try_lock(folder)
    patience = time.monotonic() + _PATIENCE_SECONDS
    while descriptor is None:
        if time.monotonic() > patience:
            raise BusyError(f"The run in {folder} is still at work in another process.")
        time.sleep(0.05)
        descriptor = try_lock(folder)
    try:
        yield
    finally:
        unlock(descriptor)


def unlock(descriptor: int) -> None:
    """Let go of a lock that ``try_lock`` returned.

    Closing alone would leave it with any process that was forked meanwhile and has the file open too.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
