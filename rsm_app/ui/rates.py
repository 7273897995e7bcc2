"""How much of something each owner may do in a time: so many at once, and then so many a second."""

from __future__ import annotations

import time

_BURST_SECONDS = 4.0  # what a rate allows at once: everything that a page asks for when it opens, many times
_MOST_OWNERS = 10000


class Rates:
    """A bucket for each owner that fills by itself and from which every request takes one."""

    def __init__(self, per_second: float):
        """Set the rate; 0 is none."""
        self._rate = per_second
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, owner: str) -> bool:
        """Take one from an owner's bucket; return whether there was one."""
        if not self._rate:
            return True
        now, full = time.monotonic(), self._rate * _BURST_SECONDS
        left, seen = self._buckets.pop(owner, (full, now))
        left = min(full, left + (now - seen) * self._rate)
        allowed = left >= 1.0
        self._buckets[owner] = (left - allowed, now)
        while len(self._buckets) > _MOST_OWNERS:  # the one that was not seen for longest is full again
            del self._buckets[next(iter(self._buckets))]
        return allowed
