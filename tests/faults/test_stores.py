"""What can befall a runs directory: damaged files, a set clock, reused ids, no right to write."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from rsm_app.jobs.index import Index
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.records import Worker
from rsm_app.jobs.states import STATES
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui.live import status_html
from tests.e2e.shell import ROOT
from tests.faults.many_runs import finished_run, make_finished_runs
from trainers.errors import InputError, StudioError
from trainers.processes import process_identity
from trainers.run_folder import DAMAGED, atomic_write

DAY = 86400.0


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


def listed(store):
    index = Index(store)
    rows = {row.id: row.state for row in index.rows(scan=True)}
    index.close()
    return rows


def set_status(run, **values):
    atomic_write(run.folder.status_file, json.dumps(values))


def live_status(process, **values):
    identity = process_identity(process.pid)
    return {"state": "running", "pid": process.pid, "pid_identity": identity, **values}


@pytest.fixture
def process():
    """Some living process that is no worker."""
    running = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield running
    running.kill()
    running.wait()


DAMAGE = {
    "garbage": lambda path: path.write_bytes(b"this is no database" * 500),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "holes": lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192),
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_made_anew_from_the_folders(damage, store):
    make_finished_runs(store, 20)
    before = listed(store)
    assert len(before) == 20 and set(before.values()) == {"succeeded", "stopped", "failed"}
    path = store.root / ".index" / "runs.sqlite"
    for side in ("-wal", "-shm"):
        Path(f"{path}{side}").unlink(missing_ok=True)
    DAMAGE[damage](path)
    assert listed(store) == before


def test_an_index_damaged_under_a_running_app_is_survived(store):
    make_finished_runs(store, 20)
    index = Index(store)
    assert len(index.rows()) == 20
    for path in (store.root / ".index").iterdir():
        path.write_bytes(b"\x00garbage" * 3000)
    finished_run(store, 21)
    assert len(index.rows(scan=True)) == 21 and len(listed(store)) == 21


def test_a_deleted_and_a_changed_folder_are_noticed(store):
    runs = make_finished_runs(store, 5)
    index = Index(store)
    assert len(index.rows()) == 5
    shutil.rmtree(runs[0].path)
    set_status(runs[1], state="failed", error="It broke.")
    rows = {row.id: row for row in index.rows(scan=True)}
    assert len(rows) == 4 and rows[runs[1].id].state == "failed" and rows[runs[1].id].error == "It broke."


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"state": 5}', '{"state": "running", "pid": "x"}']
)
def test_whatever_is_in_the_files_every_state_is_one_of_the_known_ones(content, store):
    run = finished_run(store, 0)
    for path in (run.folder.status_file, run.job_file, run.worker_file):
        path.write_text(content)
    run.folder.metrics.write_bytes(b'{"step": 1}\n{"st')
    assert run.status().state in STATES and listed(store)[run.id] in STATES
    assert run.folder.read_metrics() == [{"step": 1}]


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", '{"state": "banana"}', '{"state": "succeeded", "phase": "dance"}'),
        *('{"state": "running", "pid": 1.5}', '{"state": "running", "pid": true}'),
        *('{"state": "succeeded", "eta_seconds": NaN}', '{"state": "stopped", "updates": 1e999}'),
        '{"state": "failed", "updates": 99999999999999999999999}',
    ],
)
def test_a_run_whose_status_is_damaged_says_so_and_can_be_shown_resumed_or_deleted(content, store):
    run, neighbour = finished_run(store, 0), finished_run(store, 1)
    run.folder.status_file.write_text(content)
    run.write_worker(Worker(ticket=1, pid=2**22 + 1, exit_code=0))
    status = run.status()
    assert status.state == "interrupted" and status.error == DAMAGED and run.resumable()
    assert listed(store) == {run.id: "interrupted", neighbour.id: "succeeded"}
    assert "status.json, is damaged" in status_html(run, status, None, None)
    Supervisor(store).delete(run.id)
    assert not run.path.exists()


def test_a_folder_that_no_reader_expects_hides_no_other(store, caplog, monkeypatch):
    odd, plain = finished_run(store, 0), finished_run(store, 1)
    describe = Index._describe

    def unforeseen(index, run):
        if run.id == odd.id:
            raise RuntimeError("nobody thought of this")
        return describe(index, run)

    with monkeypatch.context() as patched:
        patched.setattr(Index, "_describe", unforeseen)
        assert listed(store) == {plain.id: "succeeded"}
    assert odd.id in caplog.text and "Traceback" in caplog.text
    assert listed(store).keys() == {odd.id, plain.id}


def test_a_run_without_readable_settings_is_not_trained_more(store):
    run = finished_run(store, 0)
    for path in (run.request, run.folder.config):
        path.write_text("{")
    with pytest.raises(InputError, match="settings of this run are damaged"):
        Supervisor(store).extend(run.id, 60)


def test_the_queue_outlives_what_nobody_foresaw_and_says_what_it_was(store, monkeypatch, caplog):
    supervisor, started = Supervisor(store), threading.Event()

    def exhausted(runs):
        if started.is_set():
            recovered.set()
            return ""
        started.set()
        raise RuntimeError("can't start new thread")

    recovered = threading.Event()
    monkeypatch.setattr(supervisor, "_watch", exhausted)
    thread = supervisor.keep_running()
    assert started.wait(60) and recovered.wait(60), "the next tick came"
    supervisor.close()
    thread.join(60)
    assert "can't start new thread" in caplog.text and "Traceback" in caplog.text


def test_what_a_tick_met_is_told_until_one_goes_well(store, monkeypatch):
    supervisor = Supervisor(store)
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "_watch", lambda runs: 1 / 0)
        supervisor.tick()
        assert "ZeroDivisionError" in supervisor.trouble and "tried again" in supervisor.trouble
    supervisor.tick()
    assert supervisor.trouble == ""


def test_a_clock_that_was_set_back_neither_kills_nor_revives_a_run(store, process):
    """Everything on disk was written a day in the future, as it looks after the clock was set back a day."""
    late = time.time() + DAY
    alive, dead, waiting = (finished_run(store, number) for number in range(3))
    set_status(alive, **live_status(process, pid_started=late, started=late, heartbeat=late))
    set_status(
        dead, state="running", pid=process.pid, pid_started=late, pid_identity="boot:1", heartbeat=late
    )
    waiting.folder.status_file.unlink()
    waiting.change_job(submitted=late, ticket=3)
    for run in (alive, dead, waiting):
        for path in run.path.iterdir():
            os.utime(path, (late, late))
    expected = {alive.id: "running", dead.id: "interrupted", waiting.id: "queued"}
    assert listed(store) == expected
    earlier = finished_run(store, 4)
    earlier.folder.status_file.unlink()
    earlier.change_job(submitted=time.time(), ticket=4)
    index = Index(store)
    assert [row.id for row in index.queue()] == [waiting.id, earlier.id], "tickets count, not dates"


def test_a_pid_used_again_and_a_zombie_are_no_workers(store, process):
    run = finished_run(store, 0)
    set_status(run, **live_status(process))
    assert run.status().state == "running" and listed(store)[run.id] == "running"
    set_status(run, **live_status(process) | {"pid_identity": "another:1", "pid_started": time.time()})
    assert run.status().state == "interrupted"
    set_status(run, **live_status(process))
    os.kill(process.pid, signal.SIGKILL)
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        os.sched_yield()
    assert run.status().state == "interrupted" and listed(store)[run.id] == "interrupted"


_READ_ONLY = """
import os, sys
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from tests.jobs.small_runs import small_config
from trainers.errors import StudioError
config = small_config()
if os.geteuid() == 0:  # the superuser may write anywhere
    os.setegid(65534), os.seteuid(65534)
supervisor = Supervisor(RunStore(sys.argv[1]))
supervisor.tick()
print(len(supervisor.index.rows()), supervisor.store.runs()[0].status().state)
for action in (lambda: supervisor.submit(config), lambda: supervisor.extend(sys.argv[2], 60)):
    try:
        action()
    except StudioError as error:
        print(error)
"""


def test_a_directory_that_cannot_be_written_can_still_be_read(tmp_path):
    place = Path(tempfile.mkdtemp())
    try:
        store = RunStore(place / "runs")
        runs = make_finished_runs(store, 3)
        for path in (place, store.root):
            path.chmod(0o555)
        result = subprocess.run(
            [sys.executable, "-c", _READ_ONLY, str(store.root), runs[0].id],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        told = result.stdout.splitlines()
        assert result.returncode == 0, result.stderr
        assert told[0].split()[0] == "3" and told[0].split()[1] in STATES
        assert len(told) == 3 and all("cannot be written" in line for line in told[1:])
    finally:
        for path in (place, store.root):
            path.chmod(0o755)
        shutil.rmtree(place)


def test_a_full_disk_refuses_new_runs_in_a_sentence_and_leaves_no_half_run(store):
    make_finished_runs(store, 2)
    supervisor = Supervisor(store, Limits(free_mb=1e12))
    from tests.jobs.small_runs import small_config

    with pytest.raises(StudioError, match="MB left"):
        supervisor.submit(small_config())
    supervisor.close()
    assert len(store.names()) == 2


def test_a_thousand_finished_runs_are_listed_whole(store):
    make_finished_runs(store, 1000)
    index = Index(store)
    rows = index.rows()
    assert len(rows) == 1000 and [row.id for row in rows] == sorted((row.id for row in rows), reverse=True)
    assert {row.settings["reward"] for row in rows} == {"shapes"}
    assert len(index.rows(("failed",))) + len(index.rows(("succeeded", "stopped"))) == 1000
    assert sum(row.owner == "owner-1" for row in index.rows()) == 100
