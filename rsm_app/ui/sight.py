"""A run as one request sees it."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path

from rsm_app.jobs.store import Run
from rsm_app.ui.pictures import stamp
from trainers.run_folder import read_lines


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
        """Its metrics, one mapping per update; not to be changed."""
        return lines_of(self.run.folder.metrics)

    @cached_property
    def probes(self) -> list[dict]:
        """Its looks at held-out prompts; not to be changed."""
        return lines_of(self.run.folder.probes)

    @property
    def done(self) -> bool:
        """Whether there are pairs to show and nobody is at work on them."""
        return self.run.folder.pairs.is_file() and not self.status.live


def lines_of(path: Path) -> list[dict]:
    """Return the objects of a JSON-lines file, read again only when it has changed; not to be changed."""
    return _read(path, stamp(path))


@lru_cache(maxsize=16)
def _read(path: Path, _stamp: tuple) -> list[dict]:
    return read_lines(path)
