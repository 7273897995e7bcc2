"""From a request to a certainty: stop file, then SIGTERM, then SIGKILL of the whole tree.

A worker that acts on a request says how long it still needs, and is given that, up to what a stopped run's
comparison takes: what it says may be of the full comparison that the request met. One that says nothing has
the grace of ``RSM_STOP_GRACE_SECONDS``. Time is counted on the monotonic clock from when this process first
saw the request, so neither a set clock nor a restart of the app cuts it short.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from rsm_app.jobs.records import Worker
from rsm_app.jobs.states import at_work
from rsm_app.jobs.store import Run
from rsm_app.jobs.workers import kill_tree, terminate
from trainers.interruption import FINISHING_SECONDS, STOP_SECONDS
from trainers.run_folder import RunStatus

TERM_SECONDS = 10.0
_FINISHING = ("evaluate", "save")


@dataclass
class _Patience:
    """How long one worker still has."""

    until: float
    heard: bool = False
    terminated: bool = False


def finishing_seconds(status: RunStatus) -> float:
    """Return how long a worker that finishes a stopped run may take: twice what it needs by its own words."""
    return 2.0 * min(status.eta_seconds or 0.0, STOP_SECONDS + FINISHING_SECONDS)


class Escalation:
    """Follows every stop of one runs directory."""

    def __init__(self, grace: float, term_seconds: float = TERM_SECONDS):
        """Set the seconds before a SIGTERM and between it and the SIGKILL."""
        self._grace = grace
        self._term_seconds = term_seconds
        self._patience: dict[tuple[int, str], _Patience] = {}

    def follow(self, runs: Iterable[Run]) -> None:
        """Look at every run that is at work and act on those whose time to stop is over."""
        present = set()
        for run in runs:
            status, worker = run.status(), run.worker()
            if status.state != "stopping":
                continue
            pid, identity = at_work(status, worker)
            present.add((pid, identity))
            self._act(pid, identity, status, worker)
        self._patience = {key: value for key, value in self._patience.items() if key in present}

    def _act(self, pid: int, identity: str, status: RunStatus, worker: Worker) -> None:
        now = time.monotonic()
        patience = self._patience.setdefault((pid, identity), _Patience(now + self._grace))
        if not patience.heard and status.phase in _FINISHING:
            patience.heard = True
            patience.until = max(patience.until, now + finishing_seconds(status) + self._grace)
        if now < patience.until:
            return
        if patience.terminated:
            if not worker.in_app:  # a launcher, whose tree has the other processes of the run
                kill_tree(worker.pid, worker.pid_identity)
            kill_tree(pid, identity)
            return
        terminate(pid, identity)
        patience.terminated, patience.until = True, now + self._term_seconds
