"""Deleting a run: only one that has ended and is not pinned, wholly, and beside other processes."""

import json
import os
import subprocess
import sys

import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.supervisor import Supervisor
from tests.faults.many_runs import finished_run, make_finished_runs
from tests.jobs.small_runs import ended, endless_config, small_config, training, wait_for
from trainers.errors import FaultError, InputError
from trainers.processes import process_identity
from trainers.run_lock import hold

_HOLDER = """
import sys
from pathlib import Path
from trainers.run_lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def idle(store):
    """A supervisor whose queue stands still."""
    supervisor = Supervisor(store, Limits())
    yield supervisor
    supervisor.close()


def test_an_ended_run_is_gone_from_disk_and_list_and_its_neighbours_stay(store, idle):
    runs = make_finished_runs(store, 3)
    assert len(idle.index.rows()) == 3
    idle.delete(runs[1].id)
    assert not runs[1].path.exists() and not list(store.root.glob(".trash*"))
    assert {row.id for row in idle.index.rows()} == {runs[0].id, runs[2].id}
    assert idle.index.row(runs[1].id) is None and idle.index.row(runs[0].id).state == "succeeded"
    with pytest.raises(InputError, match="no longer exists"):
        idle.delete(runs[1].id)


@pytest.mark.parametrize("name", ["", "../runs", "a/b", None])
def test_what_names_no_run_deletes_nothing(store, idle, name):
    run = finished_run(store, 0)
    with pytest.raises(InputError):
        idle.delete(name)
    assert run.exists()


def test_a_pinned_run_stays_until_it_is_unpinned(store, idle):
    run = finished_run(store, 0)
    idle.pin(run.id)
    assert [row.id for row in idle.index.page(9, pinned=True).rows] == [run.id]
    with pytest.raises(InputError, match="pinned"):
        idle.delete(run.id)
    assert run.exists()
    idle.pin(run.id, False)
    idle.delete(run.id)
    assert not run.path.exists() and idle.index.page(9).states == {}


@pytest.mark.parametrize("state", ["running", "stopping"])
def test_a_run_with_a_live_process_stays(store, idle, state):
    run = finished_run(store, 0)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        status = {"state": state, "pid": process.pid, "pid_identity": process_identity(process.pid)}
        run.folder.status_file.write_text(json.dumps(status))
        with pytest.raises(InputError, match="still at work"):
            idle.delete(run.id)
        assert run.exists()
    finally:
        process.kill()
        process.wait()


def test_a_waiting_run_stays(store, idle):
    run = finished_run(store, 0)
    run.change_job(ticket=7)
    assert run.status().state == "queued"
    with pytest.raises(InputError, match="waits in the queue"):
        idle.delete(run.id)
    assert run.exists()


def test_a_folder_that_another_process_holds_stays_whatever_its_records_say(store, idle):
    run = finished_run(store, 0)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FaultError, match="could not be deleted"):
            idle.delete(run.id)
        assert run.exists() and idle.index.row(run.id)
    finally:
        holder.communicate("")
    idle.delete(run.id)
    assert not run.path.exists()


def test_a_link_out_of_the_directory_is_not_followed(store, idle, tmp_path):
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("kept")
    run = finished_run(store, 0)
    os.symlink(outside, run.path / "samples" / "link")
    idle.delete(run.id)
    assert not run.path.exists() and (outside / "file").read_text() == "kept"


def test_real_runs_are_deleted_only_when_they_neither_work_nor_wait(supervisor, store):
    first = supervisor.submit(endless_config())
    second = supervisor.submit(small_config())
    with pytest.raises(InputError, match="still at work"):
        supervisor.delete(first.id)
    with pytest.raises(InputError, match="waits in the queue"):
        supervisor.delete(second.id)
    supervisor.stop(second.id)
    supervisor.delete(second.id)
    wait_for(training(first), what="the first update")
    with pytest.raises(InputError, match="still at work"):
        supervisor.delete(first.id)
    supervisor.stop(first.id)
    wait_for(ended(first), what="the stop")
    with hold(first.path):  # the worker lets go of its folder a moment after its last word
        pass
    supervisor.delete(first.id)
    assert store.names() == [] and supervisor.index.rows() == []
