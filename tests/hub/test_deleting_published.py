"""A run that is being published stays until that has ended, however it ends."""

import signal
import subprocess
import sys

import pytest

from rsm_app.hub.push_status import cancel_push, read_push
from rsm_app.jobs import cleaning
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from tests.e2e.shell import ROOT
from tests.hub.conftest import REPO, WRITER, environment
from tests.jobs.small_runs import wait_for
from trainers.errors import InputError

_BUSY = {"match": "objects/batch", "status": 429, "headers": {"Retry-After": "200"}}


@pytest.fixture
def supervisor(run):
    """The queue of the directory that holds the run, standing still."""
    made = Supervisor(RunStore(run.parent), Limits())
    made.store.run(run.name).change_job(owner="ann", submitted=1.0)
    yield made
    made.close()


@pytest.fixture
def pushing(hub, run, tmp_path):
    """A process that publishes the run and waits, because the Hub asks it to."""
    hub.fail(_BUSY)
    process = subprocess.Popen(
        [sys.executable, "-m", "rsm_app.hub", "push", str(run), "--repo", REPO],
        cwd=ROOT,
        env=environment(hub, tmp_path / "home", HF_TOKEN=WRITER),
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: read_push(run).state == "waiting", 60, "a push that waits")
    yield process
    process.kill()
    process.wait()


def swept(supervisor):
    """Return what goes when no run at all fits the quota."""
    with supervisor.store.lock():
        return cleaning.enforce_quota(supervisor.store, supervisor.index, Limits(disk_mb=0.001))


def test_a_run_stays_while_its_push_is_at_work_and_goes_when_the_pusher_is_dead(supervisor, pushing, run):
    with pytest.raises(InputError, match="being published. Cancel that"):
        supervisor.delete(run.name)
    assert swept(supervisor) == [] and (run / "report.json").is_file()
    pushing.send_signal(signal.SIGKILL)
    pushing.wait()
    assert read_push(run).state == "interrupted"
    assert supervisor.deletable(run.name)
    assert swept(supervisor) == [run.name] and not run.exists()


def test_a_run_whose_push_was_cancelled_can_be_deleted(supervisor, pushing, run):
    assert cancel_push(run)
    pushing.wait(60)
    assert read_push(run).state == "cancelled"
    supervisor.delete(run.name)
    assert not run.exists()
