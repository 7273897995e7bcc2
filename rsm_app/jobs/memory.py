"""Memory of workers: what their settings ask for, held against what there is before they start, and the end
of the largest one when the machine has none left.

While they work, the system itself limits those on a CPU (``workers.limit_memory``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import psutil

from rsm_app.jobs.devices import CPU, gpu_memory_gb, usable
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.resources import free_memory_mb, machine_memory_mb
from rsm_app.jobs.states import at_work
from rsm_app.jobs.store import Run
from rsm_app.jobs.workers import kill_tree
from trainers.config import RunConfig
from trainers.errors import FaultError
from trainers.memory_estimate import MemoryEstimate, device_parts, estimate_memory, host_parts
from trainers.models.configured import configured

_GB = 1e9 / 2**20


def memory_problems(config: RunConfig, devices: Sequence[str], limits: Limits, prompts: int = 0) -> list[str]:
    """Say which setting to lower when a run would take more memory than there is.

    Args:
        config: Settings whose combination is sound.
        devices: What runs may use.
        limits: What a run may take.
        prompts: Own training prompts that come along.
    """
    fitting = usable(config.device, devices)
    if not fitting:
        return []
    if fitting[0] == CPU:
        return _excess(estimate_memory(config, prompts), *_most(limits))
    spec = configured(config)
    found = _excess(MemoryEstimate(0.0, host_parts(config, spec)), machine_memory_mb(), "the machine has")
    if gpu := gpu_memory_gb():
        found += _excess(MemoryEstimate(0.0, device_parts(config, spec)), gpu * _GB, "the GPU has")
    return found


def _most(limits: Limits) -> tuple[float, str]:
    """Return the MB that a worker on the CPU may take, and who says so."""
    machine = machine_memory_mb()
    if limits.run_memory_mb and limits.run_memory_mb <= machine:
        return limits.run_memory_mb, "a run may take here"
    return machine, "the machine has"


def _excess(estimate: MemoryEstimate, most: float, whose: str) -> list[str]:
    if estimate.total <= most:
        return []
    largest = estimate.largest()
    return [
        f"This run would take about {_size(estimate.total)} of memory, more than the {_size(most)} that "
        f"{whose}: lower '{largest}', which takes {_size(estimate.parts[largest])} of it."
    ]


def _size(mb: float) -> str:
    return f"{mb / 1024:.1f} GiB" if mb >= 1024 else f"{mb:.0f} MiB"


def relieve(runs: Iterable[Run], free_mb: float) -> Run | None:
    """End the worker that takes most when less than so much memory is free; return its run."""
    if not free_mb or (free := free_memory_mb()) >= free_mb:
        return None
    taken = {run: _used_mb(run) for run in runs}
    run = max(taken, key=lambda name: taken[name], default=None)
    if run is None or not taken[run]:
        return None
    reason = (
        f"The machine had {free:.0f} MB of memory left, and this run took most of it, {taken[run]:.0f} MB. "
        "Start a new one with a smaller micro_batch or eval_batch or fewer prompts_per_update."
    )
    with contextlib.suppress(FaultError):
        run.folder.request_stop(reason)
    for pid, identity in _processes(run):
        kill_tree(pid, identity)
    return run


def _processes(run: Run) -> list[tuple[int, str]]:
    worker = run.worker()
    return [] if worker.in_app else [(worker.pid, worker.pid_identity), at_work(run.status(), worker)]


def _used_mb(run: Run) -> float:
    """Return what a run's processes hold; 0 when they are threads of the app, or gone."""
    family: dict[int, psutil.Process] = {}
    for pid, _ in _processes(run):
        with contextlib.suppress(psutil.Error, ValueError):
            process = psutil.Process(pid)
            family |= {member.pid: member for member in (process, *process.children(recursive=True))}
    total = 0.0
    for process in family.values():
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss / 2**20
    return total
