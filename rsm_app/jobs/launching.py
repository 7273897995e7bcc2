"""Starting the right kind of worker on a run, and what is known of one from outside."""

from __future__ import annotations

import time
from collections.abc import Callable

from rsm_app.jobs import workers, zero_gpu
from rsm_app.jobs.devices import CPU, processes, visibility
from rsm_app.jobs.states import at_work
from rsm_app.jobs.store import Run
from trainers.lending import on_zero_gpu
from trainers.processes import process_age
from trainers.run_folder import RunStatus
from trainers.run_lock import try_lock, unlock

_make_room: list[Callable[[], None]] = []


def before_launching(make_room: Callable[[], None]) -> None:
    """Let this process give up memory whenever it is about to start a worker.

    Args:
        make_room: Must be quick: the queue waits for it.
    """
    if make_room not in _make_room:
        _make_room.append(make_room)


def launch(run: Run, ticket: int, device: str, memory_mb: float = 0.0) -> None:
    """Start a worker of the kind that can use the device; only under the store's lock.

    Args:
        run: The run, new or with a past.
        ticket: The ticket that the worker uses up.
        device: Where it works.
        memory_mb: The memory that a worker on the CPU may take; 0 sets no limit.

    Raises:
        FaultError: The record or the process could not be made; the run goes on waiting.
    """
    for make_room in _make_room:
        make_room()
    if on_zero_gpu() and device != CPU:
        zero_gpu.launch(run, ticket, device)
    else:
        settings = run.settings()
        asked, model = str(settings.get("device", "auto")), str(settings.get("model", ""))
        prompts = settings.get("prompts_per_update")
        # What cannot be right is the worker's to refuse, in a sentence.
        count = processes(asked, device, prompts if isinstance(prompts, int) else 1, model)
        own = memory_mb if device == CPU else 0.0
        workers.launch(run, ticket, device, visibility(asked, device), count, own)


def age(run: Run, status: RunStatus) -> float:
    """Return the seconds since a run's worker began."""
    worker = run.worker()
    return time.time() - worker.pid_started if worker.in_app else process_age(at_work(status, worker)[0])


def taken(run: Run) -> bool:
    """Whether a process is at work in the folder that its records do not tell of."""
    descriptor = try_lock(run.path)
    if descriptor is not None:
        unlock(descriptor)
    return descriptor is None
