"""How much of something each owner may do in a time: so many at once, and then so many a second."""

from __future__ import annotations

import time

from rsm_app.jobs.owners import NETWORK_SHARES, network_of

_BURST_SECONDS = 4.0  # what a rate allows at once: everything that a page asks for when it opens, many times
_MOST_OWNERS = 10000


class Rates:
    """A bucket for each owner that fills by itself and from which every request takes what it costs.

    Owners of one wider network have a larger bucket in common beside their own.
    """

    def __init__(self, per_second: float):
        """Set the rate; 0 is none."""
        self._rate = per_second
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, owner: str, cost: float = 1.0, keep: float = 0.0) -> bool:
        """Take from an owner's bucket; return whether there was enough.

        Args:
            owner: Who asks.
            cost: How much; a full bucket is always enough.
            keep: Part of a full bucket that has to be left.
        """
        if not self._rate or not cost:
            return True
        network, now = network_of(owner), time.monotonic()
        full = {owner: self._rate * _BURST_SECONDS}
        if network != owner:
            full[network] = full[owner] * NETWORK_SHARES
        left = {name: self._left(name, full[name], now) for name in full}
        price = min(cost, full[owner] * (1 - keep))
        allowed = all(left[name] >= price + keep * full[name] for name in full)
        for name in full:
            self._buckets[name] = (left[name] - allowed * price, now)
        while len(self._buckets) > _MOST_OWNERS:  # the one that was not seen for longest is full again
            del self._buckets[next(iter(self._buckets))]
        return allowed

    def _left(self, name: str, full: float, now: float) -> float:
        left, seen = self._buckets.pop(name, (full, now))
        return min(full, left + (now - seen) * full / _BURST_SECONDS)
