"""Which process is which and how long it has run, whatever the clock on the wall does.

A process id is used again sooner or later, and a start time read as a date moves when somebody sets the
clock. On Linux a process is therefore known by its boot and its start in kernel ticks since then; elsewhere
by the start time that the kernel recorded.
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import lru_cache
from pathlib import Path

import psutil

_START_FIELD = 19  # of /proc/PID/stat, counted after the command's closing bracket


def process_identity(pid: int) -> str:
    """Return what tells a process apart from all others that get its id; empty if it is gone."""
    ticks = _start_ticks(pid)
    if ticks is not None:
        return f"{_boot_id()}:{ticks}"
    with contextlib.suppress(psutil.Error):
        return f"at:{psutil.Process(pid).create_time():.3f}"
    return ""


def process_alive(pid: int, started: float, identity: str = "") -> bool:
    """Whether a process still runs (a zombie does not).

    Args:
        pid: Its process id.
        started: Its start in seconds since 1970, used when there is no identity.
        identity: What ``process_identity`` said while it ran.
    """
    if pid <= 0:
        return False
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        same = process_identity(pid) == identity if identity else abs(process.create_time() - started) < 2.0
        return same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


def process_age(pid: int | None = None) -> float:
    """Return the seconds since a process (this one when None) began; 0 if it is gone."""
    pid = os.getpid() if pid is None else pid
    ticks = _start_ticks(pid)
    if ticks is not None:
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    with contextlib.suppress(psutil.Error):
        return max(0.0, time.time() - psutil.Process(pid).create_time())
    return 0.0


def _start_ticks(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[_START_FIELD])
    except (OSError, ValueError, IndexError):
        return None


@lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
