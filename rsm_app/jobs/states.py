"""The truth about a run: what its files say, held against the processes that exist, at every read.

Added to the worker's own words are the moments before and after them: waiting in the queue, a worker that was
started but has not written yet, and one that ended without a word.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

from rsm_app.jobs.records import Job, Worker
from trainers.errors import FaultError
from trainers.run_folder import DAMAGED, RunFolder, RunStatus
from trainers.run_lock import try_lock, unlock

STATES = ("queued", "running", "stopping", "stopped", "succeeded", "failed", "interrupted")
ENDED = ("stopped", "succeeded", "failed", "interrupted")
UNENDED = tuple(state for state in STATES if state not in ENDED)
RESUMABLE = ("interrupted", "failed", "stopped")
WITHDRAWN = "Taken out of the queue before it began; nothing was trained."
_WAITING = "Waiting in the queue."
_STARTING = "Starting the worker."
_BORROWING = "Waiting to be lent a GPU."
_UNSAVED = (
    "The worker ended with an error that it could not save, most likely because the disk is full. Free some "
    "space, then resume the run; what was saved is intact."
)
_ERROR = "Error: "
_REFUSED = (1, 2)  # what a worker returns after saying why


def reconcile(folder: RunFolder, job: Job, worker: Worker, last_words: Callable[[], list[str]]) -> RunStatus:
    """Return what a run is doing; its state is one of ``STATES``.

    Args:
        folder: What the worker wrote.
        job: The app's record.
        worker: The process that was last started.
        last_words: Returns the last lines that this process printed.
    """
    status = folder.status()
    if status.live:
        return status
    if _between_chunks(status, worker):
        state = "stopping" if folder.stop_requested() else "running"
        return _at(status, state, _BORROWING)
    # Only a worker whose pid could not be noted is known by its lock, which the threads of a process that was
    # killed keep for a moment longer than it lives.
    unknown = worker.ticket and not worker.pid
    if not spoken(status, worker) and (worker.alive or (unknown and _held(folder))):
        state = "stopping" if folder.stop_requested() else "running"
        return _at(status, state, _STARTING, phase="load")
    if waiting(status, job, worker):
        return _at(status, "queued", _WAITING)
    if worker.pid and not spoken(status, worker):
        status = folder.status()  # it may have spoken, and even ended, since the first look
        if status.live or spoken(status, worker):
            return status
        return _after_silence(status, worker, last_words(), folder.last_words())
    if status.state == "new":
        return _never_begun(status, job)
    if status.state == "interrupted" and worker.exit_code in _REFUSED and spoken(status, worker):
        return _ended(status, "failed", _said(last_words()) or _UNSAVED)
    return status


def waiting(status: RunStatus, job: Job, worker: Worker) -> bool:
    """Whether a run's ticket is still to be used.

    A ticket is used up by a worker with a pid, or by one that has spoken though whoever started it could not
    note its pid any more. Nothing waits for a worker that may have been started, but cannot be known.
    """
    if not job.ticket or worker.damaged:
        return False
    return worker.ticket != job.ticket or (not worker.pid and not spoken(status, worker))


def spoken(status: RunStatus, worker: Worker) -> bool:
    """Whether the recorded worker has written its first status."""
    return mark(status, worker.in_app) != worker.seen


def mark(status: RunStatus, in_app: bool) -> str:
    """Return what is another in the first status of a worker that begins now.

    A worker process is known by its identity. For a thread of the app other processes write, any number of
    them, which the next thread may meet again; but no two statuses have the same time, however clocks are
    set.
    """
    return str(status.heartbeat) if in_app else status.pid_identity


def at_work(status: RunStatus, worker: Worker) -> tuple[int, str]:
    """Return the process that does the work of a live run, as pid and identity.

    It is the first of several where a launcher started them, and the recorded worker until it has spoken.
    """
    if spoken(status, worker) and status.pid_identity:
        return status.pid, status.pid_identity
    return worker.pid, worker.pid_identity


def _between_chunks(status: RunStatus, worker: Worker) -> bool:
    """Whether a thread of the app waits for the GPU on which this run is to begin or to go on."""
    return worker.in_app and worker.alive and (status.state == "interrupted" or not spoken(status, worker))


def resumable(folder: RunFolder, status: RunStatus) -> bool:
    """Whether a run ended early and can go on; not when its settings were refused."""
    return status.state in RESUMABLE and (status.state != "failed" or folder.exists())


def _at(status: RunStatus, state: str, message: str, **changes) -> RunStatus:
    return dataclasses.replace(
        status, state=state, message=message, error="", eta_seconds=None, stop_reason="", **changes
    )


def _held(folder: RunFolder) -> bool:
    """Whether some process is at work in the folder."""
    with contextlib.suppress(FaultError):
        descriptor = try_lock(folder.path)
        if descriptor is not None:
            unlock(descriptor)
        return descriptor is None
    return False


def _after_silence(status: RunStatus, worker: Worker, words: list[str], killed: str) -> RunStatus:
    """Describe a worker that ended before its first status: it refused with words, or it was killed."""
    refused = worker.exit_code in _REFUSED or (
        worker.exit_code is None and any(line.startswith(_ERROR) for line in words)
    )
    if refused:
        return _ended(status, "failed", _said(words) or "The worker ended at once and left no message.")
    return _ended(status, "interrupted", DAMAGED if status.error == DAMAGED else killed)


def _said(words: list[str]) -> str:
    """Return what a worker printed as its reason to end, or all its last words if it gave none."""
    usual = max(0, len(words) - 3)
    last = max((number for number, line in enumerate(words) if line.startswith(_ERROR)), default=usual)
    return " ".join(words[last:]).removeprefix(_ERROR)


def _never_begun(status: RunStatus, job: Job) -> RunStatus:
    if job.withdrawn:
        return dataclasses.replace(_ended(status, "stopped", ""), message=WITHDRAWN)
    return _ended(status, "interrupted", "This run never began. Resume it to queue it again.")


def _ended(status: RunStatus, state: str, error: str) -> RunStatus:
    return dataclasses.replace(status, state=state, error=error, eta_seconds=None)
