"""Start, stop and resume workers: one process per run, at most one live run per runs directory.

The rule of one holds across tabs and app processes: looking for a live run and starting a worker happen
under one file lock, and "live" is read from the folders. A worker outlives the app; the app never waits
for it, it only reaps it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from rsm_app.jobs.environment import worker_environment
from rsm_app.jobs.store import ROOT, Run, RunStore
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError, StudioError
from trainers.run_folder import atomic_write, read_json

NICENESS = 5
RESUMABLE = ("interrupted", "failed", "stopped")


class BusyError(StudioError):
    """Another run is at work.

    Attributes:
        run_id: The run that is at work.
    """

    def __init__(self, run_id: str):
        """Name the run that is at work."""
        self.run_id = run_id
        super().__init__(
            f"Run {run_id} is still at work, and this machine trains one run at a time. "
            "Open it and press Stop (its results are kept), or wait until it ends."
        )


def start(store: RunStore, config: RunConfig, prompts: str | None = None) -> Run:
    """Start a worker on a new run.

    Args:
        store: The runs directory.
        config: The settings, already checked.
        prompts: Text of the training prompts, one a line, when they are not a built-in set.

    Returns:
        The new run; its worker process exists.

    Raises:
        BusyError: Another run is at work.
        FaultError: The folder or the process could not be made.
    """
    with _lock(store):
        busy = store.live()
        if busy:
            raise BusyError(busy.id)
        try:
            run = store.create()
        except OSError as error:
            raise _fault("make the run's folder", error) from error
        if prompts is not None:
            atomic_write(run.prompts, prompts)
            config = dataclasses.replace(config, prompts=str(run.prompts))
        atomic_write(run.request, config.to_json())
        _spawn(run, ["train", "--config", str(run.request), "--out", str(run.path)])
        return run


def resume(store: RunStore, run_id: str) -> Run:
    """Continue an interrupted run from its last checkpoint.

    Raises:
        InputError: There is no such run, or nothing to continue.
        BusyError: A run is at work.
        FaultError: The process could not be made.
    """
    with _lock(store):
        busy = store.live()
        if busy:
            raise BusyError(busy.id)
        run = store.run(run_id)
        if run is None:
            raise InputError("This run no longer exists. Press Start to begin a new one.")
        if not resumable(run):
            raise InputError("This run has no checkpoint to continue from. Press Start to begin a new one.")
        run.folder.stop_file.unlink(missing_ok=True)
        _spawn(run, ["resume", str(run.path)])
        return run


def resumable(run: Run) -> bool:
    """Whether a run ended early and left a checkpoint to continue from."""
    return run.status().state in RESUMABLE and any(run.folder.checkpoints.glob("*.safetensors"))


def stop(store: RunStore, run_id: str) -> Run:
    """Ask a run's worker to evaluate, save and end.

    Raises:
        InputError: There is no such run or it is not at work.
    """
    run = store.run(run_id)
    if run is None or not run.status().live:
        raise InputError("This run is not at work any more, so there is nothing to stop.")
    run.folder.request_stop()
    return run


@contextlib.contextmanager
def _lock(store: RunStore) -> Iterator[None]:
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        file = open(store.root / ".lock", "a")  # noqa: SIM115 (held for the whole block)
    except OSError as error:
        raise _fault("open the runs directory", error) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _spawn(run: Run, arguments: list[str]) -> None:
    try:
        with open(run.worker_log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "trainers", *arguments],
                cwd=ROOT,
                env=worker_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise _fault("start the worker process", error) from error
    record = {"pid": process.pid, "pid_started": _be_polite(process.pid), "exit_code": None}
    _record(run.worker_file, record)
    threading.Thread(target=_reap, args=(process, run.worker_file, record), daemon=True).start()


def _be_polite(pid: int) -> float:
    """Lower the priority of a fresh process and return its start time."""
    try:
        process = psutil.Process(pid)
        with contextlib.suppress(psutil.Error, OSError):
            process.nice(NICENESS)
        return process.create_time()
    except psutil.Error:  # gone already
        return time.time()


def _reap(process: subprocess.Popen, record_file: Path, record: dict) -> None:
    """Wait for a child so that it never lingers as a zombie, and note how it ended."""
    code = process.wait()
    with contextlib.suppress(StudioError):
        recorded = read_json(record_file) or {}
        if recorded.get("pid") == process.pid:  # not when a resume has started another since
            _record(record_file, {**record, "exit_code": code})


def _record(path: Path, record: dict) -> None:
    atomic_write(path, json.dumps(record) + "\n")


def _fault(what: str, error: OSError) -> FaultError:
    return FaultError(
        f"Could not {what}: {error.strerror or error}. Free some space or memory and try again."
    )
