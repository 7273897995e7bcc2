"""Real workers on a runs directory of their own; whatever a test leaves alive is ended by its recorded id."""

import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from tests.jobs.small_runs import end_workers


@pytest.fixture
def store(tmp_path):
    runs = RunStore(tmp_path / "runs")
    yield runs
    end_workers(runs)


@pytest.fixture
def supervise(store, monkeypatch):
    """Make supervisors of the store with one device; each keeps its queue moving until the test ends."""
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    made = []

    def make(**limits) -> Supervisor:
        supervisor = Supervisor(store, Limits(**limits))
        supervisor.keep_running()
        made.append(supervisor)
        return supervisor

    yield make
    for supervisor in made:
        supervisor.close()


@pytest.fixture
def supervisor(supervise):
    return supervise()
