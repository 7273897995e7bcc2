"""What a run can have on this machine: its device, cores, memory, and what an hour of it costs."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from rsm_app.jobs.devices import CPU, devices, gpu_memory_gb, usable

# US dollars an hour, as the Hub's documentation of Spaces lists them (huggingface.co/docs/hub/spaces-gpus).
# Kinds whose listed price has changed over time are left out: name the price in RSM_HOURLY_PRICE instead.
HOURLY_PRICES: Mapping[str, float] = {
    "cpu-basic": 0.0,
    "cpu-upgrade": 0.03,
    "t4-small": 0.40,
    "t4-medium": 0.60,
    "a10g-small": 1.00,
    "a10g-large": 1.50,
    "l40sx1": 1.80,
}
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Resources:
    """What a run can have.

    Attributes:
        device: ``cpu`` or ``cuda:N``; empty when no device here is what was asked for.
        cores: CPU cores.
        free_memory_mb: Memory that is free now, in 2**20 bytes.
        hourly_price: US dollars an hour, or None when nothing says.
        gpu_memory_gb: Memory of the largest GPU, in 10⁹ bytes; 0 where the device is none, or nothing says.
    """

    device: str
    cores: int
    free_memory_mb: float
    hourly_price: float | None
    gpu_memory_gb: float = 0.0


def resources(asked: str) -> Resources:
    """Return what a run that asks for a device can have now."""
    fitting = usable(asked, devices())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    device = fitting[0] if fitting else ""
    memory = gpu_memory_gb() if on_gpu(device) else 0.0
    return Resources(device, cores, free_memory_mb(), hourly_price(), memory)


def on_gpu(device: str) -> bool:
    """Whether a device is a GPU."""
    return bool(device) and device != CPU


def free_memory_mb() -> float:
    """Return the memory that is free, within the container's limit if there is one."""
    free = psutil.virtual_memory().available
    limit = _container_limit()
    if limit is not None:
        with contextlib.suppress(OSError, ValueError):
            used = int((_CGROUP / "memory.current").read_text())
            free = min(free, limit - used + _given_back_at_need())
    return max(0.0, free / 2**20)


def machine_memory_mb() -> float:
    """Return all the memory there is, within the container's limit if there is one."""
    total, limit = psutil.virtual_memory().total, _container_limit()
    return (total if limit is None else min(total, limit)) / 2**20


def _container_limit() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int((_CGROUP / "memory.max").read_text())
    return None


def _given_back_at_need() -> int:
    """Return what a container's files take of its memory only as long as nobody else wants it."""
    with contextlib.suppress(OSError, ValueError):
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        sizes = dict(line.split() for line in lines)
        return sum(int(sizes.get(name, 0)) for name in ("inactive_file", "active_file"))
    return 0


def hourly_price(environment: Mapping[str, str] | None = None) -> float | None:
    """Return what an hour of this machine costs in US dollars; None when nothing says.

    ``RSM_HOURLY_PRICE`` says it outright; else a Space's ``SPACE_HARDWARE`` is looked up.
    """
    environment = os.environ if environment is None else environment
    with contextlib.suppress(ValueError):
        price = float(environment.get("RSM_HOURLY_PRICE", ""))
        if math.isfinite(price) and price >= 0:
            return price
    return HOURLY_PRICES.get(environment.get("SPACE_HARDWARE", "").strip().lower())
