"""A run as one request sees it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property, lru_cache
from pathlib import Path

from rsm_app.jobs.store import Run
from rsm_app.ui.pictures import stamp
from trainers.bounded_json import SampledLines, read_lines

QUICK_BYTES, QUICK_LINES = 64 * 1024, 2000  # what the event loop may read and go through by itself
_MOST_PROBE_BYTES, _MOST_PROBES = 8 * 2**20, 4096
_REMEMBERED = 32
_metrics: OrderedDict[Path, SampledLines] = OrderedDict()
_lock = threading.Lock()


class Sight:
    """A run and what the asker may do with it; files are read when they are needed, and once."""

    def __init__(self, run: Run, mine: bool, order: str = "gain", at_machine: bool = False):
        """Keep what to look at.

        Args:
            run: The run.
            mine: Whether the asker may change it and take its files away.
            order: How pairs are sorted, a key of ``pictures.ORDERS``.
            at_machine: Whether the asker sits at this machine, whose folders others are not told.
        """
        self.run, self.mine, self.order, self.at_machine = run, mine, order, at_machine
        self.status = run.status()

    @cached_property
    def lines(self) -> list[dict]:
        """Its metrics, one mapping per update, of a long run some of them; not to be changed."""
        return metrics_of(self.run.folder.metrics)

    @cached_property
    def probes(self) -> list[dict]:
        """Its looks at held-out prompts; not to be changed."""
        return probes_of(self.run.folder.probes)

    @property
    def done(self) -> bool:
        """Whether there are pairs to show and nobody is at work on them."""
        return self.run.folder.pairs.is_file() and not self.status.live

    @property
    def quick(self) -> bool:
        """Whether so little is to be read that doing it takes less time than handing it to a thread."""
        sampled = _sampled(self.run.folder.metrics)
        return sampled.unread() <= QUICK_BYTES and sampled.count <= QUICK_LINES


def metrics_of(path: Path) -> list[dict]:
    """Return the lines of a run's metrics as numbers, sampled where there are many; not to be changed."""
    return _sampled(path).lines()


def probes_of(path: Path) -> list[dict]:
    """Return a run's looks at held-out prompts, read again only when the file has changed."""
    return _read(path, stamp(path))


@lru_cache(maxsize=16)
def _read(path: Path, _stamp: tuple) -> list[dict]:
    return read_lines(path, _MOST_PROBE_BYTES, _MOST_PROBES)


def _sampled(path: Path) -> SampledLines:
    with _lock:
        found = _metrics.setdefault(path, SampledLines(path))
        _metrics.move_to_end(path)
        while len(_metrics) > _REMEMBERED:
            _metrics.popitem(last=False)
    return found
