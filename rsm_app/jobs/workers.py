"""Worker processes: started apart from the app, reaped when they end, killed with everything they started.

A worker outlives the app; the app never waits for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

import psutil

from rsm_app.jobs.environment import worker_environment
from rsm_app.jobs.records import Worker
from rsm_app.jobs.states import mark
from rsm_app.jobs.store import ROOT, Run
from trainers.errors import FaultError, StudioError
from trainers.launch import launcher
from trainers.processes import process_alive, process_identity

NICENESS = 5
# What a process has mapped but does not hold: stacks of threads, arenas of the allocator (measured on whole
# runs: 340 MB with two threads).
_MAPPED_MB = 512.0


def launch(
    run: Run,
    ticket: int,
    device: str,
    variables: Mapping[str, str],
    processes: int = 1,
    memory_mb: float = 0.0,
) -> None:
    """Start a worker on a run and record it; only under the store's lock.

    Args:
        run: The run, new or with a past.
        ticket: The ticket that the worker uses up.
        device: Where it works.
        variables: What its environment has beside this process's.
        processes: How many work on it together, as ``accelerate launch`` starts them.
        memory_mb: The memory that they may take; 0 sets no limit.

    Raises:
        FaultError: The record or the process could not be made; the run goes on waiting.
    """
    earlier = run.worker()
    again = earlier.ticket == ticket  # its process is not known: it may have spoken since this was decided
    worker = Worker(
        ticket=ticket,
        device=device,
        seen=earlier.seen if again else mark(run.folder.status(), in_app=False),
        log_start=run.log_size(),
    )
    with contextlib.suppress(OSError):
        run.folder.stop_file.unlink(missing_ok=True)
    run.write_worker(worker)  # from here on a reader knows that there may be one
    environment = {**worker_environment(settings=run.settings()), **variables}
    process = _start(run, [*launcher(processes), "trainers", *_words(run)], environment)
    limit_memory(process.pid, memory_mb)
    worker = dataclasses.replace(
        worker,
        pid=process.pid,
        pid_started=_be_polite(process.pid),
        pid_identity=process_identity(process.pid),
    )
    try:
        run.write_worker(worker)
    finally:
        with contextlib.suppress(RuntimeError):  # no thread to be had: its end shows all the same
            threading.Thread(target=_reap, args=(process, run, worker), daemon=True).start()


def _words(run: Run) -> list[str]:
    if not run.folder.exists():
        return ["train", "--config", str(run.request), "--out", str(run.path)]
    limits = {name: value for name, value in run.job().limits.items() if isinstance(value, int | float)}
    return [
        *("resume", str(run.path)),
        *(f"--{name.replace('_', '-')}={value:g}" for name, value in limits.items()),
    ]


def _start(run: Run, words: list[str], environment: dict[str, str]) -> subprocess.Popen:
    try:
        with open(run.worker_log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise FaultError(
            f"Could not start the worker process: {error.strerror or error}. It is tried again; free some "
            "space or memory."
        ) from error


def _be_polite(pid: int) -> float:
    """Lower the priority of a fresh process and return its start time."""
    try:
        process = psutil.Process(pid)
        with contextlib.suppress(psutil.Error, OSError):
            process.nice(NICENESS)
        return process.create_time()
    except psutil.Error:  # gone already
        return time.time()


def _reap(process: subprocess.Popen, run: Run, worker: Worker) -> None:
    """Wait for a child so that it never lingers as a zombie, and note how it ended."""
    code = process.wait()
    with contextlib.suppress(StudioError):
        run.note_end(worker, code)


def limit_memory(pid: int, most_mb: float) -> None:
    """Let the system refuse a fresh process more memory than so many MB, and those that it starts; 0 is none.

    Its own data counts, as far as it is mapped. On a GPU the driver maps what it likes, so there a limit
    would only be in the way.
    """
    most = int((most_mb + _MAPPED_MB) * 2**20)
    with contextlib.suppress(psutil.Error, OSError, AttributeError):  # not every system can
        if most_mb:
            psutil.Process(pid).rlimit(psutil.RLIMIT_DATA, (most, most))


def terminate(pid: int, identity: str) -> None:
    """Send SIGTERM to a process, if it is still the same and not this one."""
    if pid != os.getpid() and process_alive(pid, 0.0, identity or "unknown"):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def kill_tree(pid: int, identity: str) -> None:
    """Kill a process, its process group and its descendants, if it is still the same and not this one."""
    if pid == os.getpid() or not process_alive(pid, 0.0, identity or "unknown"):
        return
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(pid).children(recursive=True)
    with contextlib.suppress(OSError):
        if os.getpgid(pid) == pid:  # its own group, never the app's
            os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    for member in family:
        with contextlib.suppress(psutil.Error):
            member.kill()
