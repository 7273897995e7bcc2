"""How many files this process may have open, and so how many connections.

A connection is an open file, and what is downloaded through it is another one. When there are no more, nobody
is answered any more, and no run starts.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

try:
    import resource
except ImportError:  # Windows, where sockets are no files
    resource = None

ENOUGH = 65536  # some programs that a worker starts go through all numbers of files that there may be
MOST_CONNECTIONS = 8000
_BACKLOG = 2048  # uvicorn's own
_KEPT = 192  # files for runs, their index, logs and the Hub
_FEWEST = 16
_LOWER = (10240, 4096)  # macOS calls its limit infinite and lets a process have OPEN_MAX, the first of these


@dataclass(frozen=True)
class Room:
    """What a server may take of the files of its process.

    Attributes:
        connections: That are open at the same time.
        backlog: Connections that wait to be taken up; a server takes them up all at once.
    """

    connections: int
    backlog: int


def raise_limit() -> int | None:
    """Let this process open as many files as it may, up to ``ENOUGH``; return how many, None for any."""
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    for number in (wanted, *_LOWER):
        if soft < number <= wanted:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
                return number
    return soft


def room_for(limit: int | None, taken: int) -> Room:
    """Return how many connections leave room for everything else.

    Args:
        limit: Files that may be open; None for any number.
        taken: Files that are open already.
    """
    if limit is None:
        return Room(MOST_CONNECTIONS, _BACKLOG)
    left = limit - taken - _KEPT
    backlog = max(_FEWEST, min(_BACKLOG, left // 4))
    return Room(max(_FEWEST, min(MOST_CONNECTIONS, (left - backlog) // 2)), backlog)


def files_open() -> int:
    """Return how many files this process has open; 0 where the platform does not say."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return len(os.listdir(folder))
    return 0
