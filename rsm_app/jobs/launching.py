"""Starting the right kind of worker on a run, and what is known of one from outside."""

from __future__ import annotations

import time

from rsm_app.jobs import workers, zero_gpu
from rsm_app.jobs.devices import CPU, processes, visibility
from rsm_app.jobs.store import Run
from trainers.lending import on_zero_gpu
from trainers.processes import process_age
from trainers.run_folder import RunStatus
from trainers.run_lock import try_lock, unlock


def launch(run: Run, ticket: int, device: str) -> None:
    """Start a worker of the kind that can use the device; only under the store's lock.

    Args:
        run: The run, new or with a past.
        ticket: The ticket that the worker uses up.
        device: Where it works.

    Raises:
        FaultError: The record or the process could not be made; the run goes on waiting.
    """
    if on_zero_gpu() and device != CPU:
        zero_gpu.launch(run, ticket, device)
    else:
        settings = run.settings()
        asked = str(settings.get("device", "auto"))
        prompts, model = int(settings.get("prompts_per_update", 1)), str(settings.get("model", ""))
        count = processes(asked, device, prompts, model)
        workers.launch(run, ticket, device, visibility(asked, device), count)


def age(run: Run, status: RunStatus) -> float:
    """Return the seconds since a run's worker began."""
    worker = run.worker()
    return time.time() - worker.pid_started if worker.in_app else process_age(status.pid or worker.pid)


def taken(run: Run) -> bool:
    """Whether a process is at work in the folder that its records do not tell of."""
    descriptor = try_lock(run.path)
    if descriptor is not None:
        unlock(descriptor)
    return descriptor is None
