"""More time for an ended run: how much its budget grows, and that the promise outlives a lost worker."""

import dataclasses
import json

import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.supervisor import Supervisor
from tests.faults.many_runs import finished_run
from trainers.errors import InputError
from trainers.opening import reopen
from trainers.run_folder import write_json


@pytest.fixture
def idle(store, monkeypatch):
    """A supervisor that starts nothing and lets a worker take 1000 s."""
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(store, Limits(free_mb=0, run_seconds=1000))
    monkeypatch.setattr(supervisor, "tick", lambda: None)
    yield supervisor
    supervisor.close()


def ended_run(store, state="stopped", phase="done", wall=None, max_updates=0):
    """A run of 900 s of budget that ended after 16 updates, the last of them 200 s after its start."""
    run = finished_run(store, 0)
    settings = json.loads(run.folder.config.read_text())
    write_json(run.folder.config, settings | {"budget_seconds": 900.0, "max_updates": max_updates})
    status = {"state": state, "phase": phase, "updates": 16, "pid_identity": "first"}
    write_json(run.folder.status_file, status)
    run.folder.metrics.write_text('{"step": 16, "seconds": 200.0}\n')
    run.folder.checkpoints.mkdir()
    (run.folder.checkpoints / "00000016.safetensors").write_bytes(b"")
    if wall is not None:
        write_json(run.folder.report, {"wall_seconds": wall})
    return run


@pytest.mark.parametrize(
    ("facts", "limits"),
    [
        ({"wall": 210.0}, {"budget_seconds": 330.0}),
        ({"state": "succeeded", "wall": 905.0}, {"budget_seconds": 1020.0}),
        (
            {"state": "succeeded", "wall": 250.0, "max_updates": 16},
            {"budget_seconds": 370.0, "max_updates": 0},
        ),
        # Cut off: what it was asked for is still to be done. A report is then of an earlier end.
        ({"state": "interrupted", "phase": "train"}, {"budget_seconds": 1020.0}),
        ({"state": "interrupted", "phase": "train", "wall": 50.0}, {"budget_seconds": 1020.0}),
        # Cut off while it compared: the limit is lifted, so the time that was left would be trained, too.
        (
            {"state": "interrupted", "phase": "evaluate", "max_updates": 16},
            {"budget_seconds": 320.0, "max_updates": 0},
        ),
    ],
)
def test_two_minutes_more_are_two_minutes_more(idle, store, facts, limits):
    run = ended_run(store, **facts)
    idle.extend(run.id, 120)
    assert run.job().limits == limits


def test_the_limit_of_a_worker_counts_what_is_still_to_be_done(idle, store):
    run = ended_run(store, wall=210.0)
    idle.extend(run.id, 1000)
    assert run.job().limits == {"budget_seconds": 1210.0}
    cut = ended_run_again(run, state="interrupted", phase="train")
    with pytest.raises(InputError, match="may take 1000 seconds"):
        idle.extend(cut.id, 301)


def ended_run_again(run, **changes):
    write_json(run.folder.status_file, json.loads(run.folder.status_file.read_text()) | changes)
    run.change_job(ticket=0)
    return run


def lose_worker(run):
    """Let the worker that was started for the run's ticket be gone; it said nothing yet."""
    worker = dataclasses.replace(run.worker(), ticket=run.job().ticket, pid=2**22 + 1, exit_code=-9)
    run.write_worker(dataclasses.replace(worker, seen=run.folder.status().pid_identity))


def test_a_longer_run_whose_worker_died_at_once_still_gets_its_time_when_it_is_resumed(idle, store):
    run = ended_run(store, state="succeeded", wall=905.0)
    idle.extend(run.id, 120)
    lose_worker(run)
    assert run.status().state == "interrupted" and run.resumable()
    for _ in range(2):  # however often that happens
        idle.resume(run.id)
        assert run.status().state == "queued" and run.job().limits == {"budget_seconds": 1020.0}
        lose_worker(run)
    assert reopen(run.path, run.job().limits)[1].budget_seconds == 1020.0


def test_limits_that_a_worker_has_written_down_are_not_given_again(idle, store):
    run = ended_run(store, state="succeeded", wall=905.0)
    idle.extend(run.id, 120)
    lose_worker(run)
    ended_run_again(run, state="interrupted", phase="train", pid_identity="second")
    idle.resume(run.id)
    assert run.job().limits == {}
