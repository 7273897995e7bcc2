"""Workers on ZeroGPU: threads of the app that are lent a GPU for one chunk of a run after the other.

There a GPU exists only inside a function decorated by ``spaces.GPU``, which runs in a process forked from the
app and is cut off at its deadline; a worker process of its own would get none. Such a thread keeps to the
life of a run folder that other workers have: it reads the request, records itself in ``worker.json``, writes
its last words to ``worker.txt``, and all else is written by ``trainers.chunks.train_chunk``. What is left
out: outliving the app. A run whose app was restarted is ``interrupted`` and resumes from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache

from rsm_app.jobs.records import Worker
from rsm_app.jobs.states import mark
from rsm_app.jobs.store import Run
from trainers.coercion import from_mapping
from trainers.errors import FaultError, InputError, StudioError
from trainers.lending import on_zero_gpu
from trainers.opening import start
from trainers.processes import process_identity
from trainers.run_folder import RunFolder, append_log

SECONDS = "RSM_ZERO_GPU_SECONDS"
_USUAL_SECONDS = 60.0
_MARGIN_SECONDS = 5.0  # of a chunk's time, for the fork and for moving to the GPU
_AGAIN_SECONDS = 5.0
_visitors: dict[str, object] = {}


def prepare() -> None:
    """Get ready to borrow, when the app starts: import ``spaces`` before torch, and torch before any fork.

    Raises:
        InputError: ``spaces`` is not installed, or ``RSM_ZERO_GPU_SECONDS`` has a wrong value.
    """
    _lent_chunk()
    import trainers.chunks  # noqa: F401 (what every forked process would otherwise load for itself)


def remember_visitor(run: Run) -> None:
    """Keep who asks for a run, so that the time it borrows is counted as theirs, not as the Space's."""
    if on_zero_gpu():
        _visitors[run.id] = _visitor_variable().get(None)


def launch(run: Run, ticket: int, device: str) -> None:
    """Start a thread that works on a run and record it; only under the store's lock.

    Args:
        run: The run, new or with a past.
        ticket: The ticket that the worker uses up.
        device: What the GPU is called.

    Raises:
        FaultError: The record could not be made; the run goes on waiting.
    """
    pid, earlier = os.getpid(), run.worker()
    worker = Worker(
        ticket,
        device,
        seen=mark(run.folder.status(), in_app=True),
        pid=pid,
        pid_started=time.time(),
        pid_identity=process_identity(pid),
        log_start=run.log_size(),
        in_app=True,
    )
    with contextlib.suppress(OSError):
        run.folder.stop_file.unlink(missing_ok=True)
    run.write_worker(worker)
    try:
        threading.Thread(target=_work, args=(run, worker), name=f"borrow-{run.id}", daemon=True).start()
    except RuntimeError as error:
        run.write_worker(earlier)
        raise FaultError(f"Could not start to work on a run: {error}. It is tried again.") from error


def _work(run: Run, worker: Worker) -> None:
    """Borrow until the run has ended, then record how it did."""
    _visitor_variable().set(_visitors.pop(run.id, None))
    try:
        if not run.folder.exists():
            start(run.path, from_mapping(run.certain_settings()))
        code, words = _borrow(run.folder, run.job().limits)
    except StudioError as error:
        code, words = error.exit_code, str(error)
    except Exception as error:  # whatever the lender says, and in its own types
        code, words = 1, f"No GPU was lent, or it was taken away: {error}. Resume the run to go on."
    append_log(run.worker_log, f"Error: {words}\n" if words else "")
    _note_end(run, worker, code)


def _note_end(run: Run, worker: Worker, code: int) -> None:
    """Record how the work on a run ended, however long the disk is full: until then it holds the device."""
    while True:
        with contextlib.suppress(StudioError):
            return run.note_end(worker, code)
        time.sleep(_AGAIN_SECONDS)


def _borrow(folder: RunFolder, limits: dict) -> tuple[int, str]:
    """Let chunk after chunk work on a run; return its exit code and last words.

    A chunk that is cut off is followed by another as long as something was saved since the one before.
    """
    from trainers.chunks import reached

    chunk, seconds = _lent_chunk(), chunk_seconds() - _MARGIN_SECONDS
    while True:
        before = reached(folder)
        try:
            code, words = chunk(str(folder.path), seconds, limits)
        except Exception:
            if folder.stop_requested() or reached(folder) == before:
                raise
            continue
        if code or folder.status().state != "interrupted":
            return code, words


def _chunk(path: str, seconds: float, limits: dict) -> tuple[int, str]:
    """Work on a run where the GPU is; errors are returned, since only their type would come through."""
    from trainers.chunks import train_chunk
    from trainers.failures import explain, last_traceback

    try:
        train_chunk(path, seconds, limits=limits)
    except StudioError as error:
        return error.exit_code, str(error)
    except Exception as error:
        append_log(RunFolder(path).log, last_traceback())
        return 1, explain(error)
    return 0, ""


@lru_cache(maxsize=1)
def _lent_chunk() -> Callable[[str, float, dict], tuple[int, str]]:
    """Return ``_chunk`` as the lender runs it."""
    try:
        import spaces
    except ImportError as error:
        raise InputError(
            "This Space lends its GPU by the minute, but the package 'spaces' that asks for it is missing. "
            "Install it with: pip install spaces"
        ) from error
    return spaces.GPU(duration=math.ceil(chunk_seconds()))(_chunk)


def chunk_seconds() -> float:
    """Return for how many seconds a GPU is borrowed at a time.

    Raises:
        InputError: ``RSM_ZERO_GPU_SECONDS`` is no number above the margin.
    """
    text = os.environ.get(SECONDS, "").strip() or str(_USUAL_SECONDS)
    with contextlib.suppress(ValueError):
        if math.isfinite(seconds := float(text)) and seconds > 2 * _MARGIN_SECONDS:
            return seconds
    raise InputError(f"{SECONDS} must be a number above {2 * _MARGIN_SECONDS:g}, not '{text}'.")


def _visitor_variable():
    """Return the context variable in which the lender looks for the request of whoever asks."""
    from spaces.utils import gradio_request_var

    return gradio_request_var()
