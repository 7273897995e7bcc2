"""Real workers on a runs directory of their own; whatever a test leaves alive is ended by its recorded id."""

import os
import signal

import pytest

from rsm_app.jobs.store import RunStore


@pytest.fixture
def store(tmp_path):
    runs = RunStore(tmp_path / "runs")
    yield runs
    for run in runs.runs():
        worker = run.worker()
        if worker.alive:
            os.kill(worker.pid, signal.SIGKILL)
