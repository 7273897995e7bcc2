"""What a run's records say counts only while they can be read: else it is nobody's and opens nothing."""

import contextlib
import dataclasses
import json
import os
import resource
import shutil

import pytest

from rsm_app.jobs import cleaning
from rsm_app.jobs.index import Index
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.records import UNREADABLE_JOB, UNREADABLE_WORKER, Job, Worker
from rsm_app.jobs.store import ORIGIN, RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui.access import allowed, visible_run
from tests.faults.many_runs import finished_run
from tests.ui.asking import asker
from trainers.errors import FaultError, InputError

OWNER, STRANGER = asker("10.0.0.1"), asker("10.0.0.2")
WHOLE = json.dumps(dataclasses.asdict(Job(owner="10.0.0.1", submitted=1.0)))
# As an earlier version wrote it, before records said that a run was made in a shell.
EARLIER = {"submitted": 0.0, "ticket": 0, "withdrawn": False, "pinned": False, "shared": False, "limits": {}}


def written(content):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def linked(target):
    return lambda path: path.symlink_to(target)


def changed(**values):
    return written(json.dumps(json.loads(WHOLE) | values))


DAMAGE = {
    "gone": lambda path: None,
    "empty": written(""),
    "torn": written(WHOLE[:-20]),
    "zeros": written(b"\x00" * len(WHOLE)),
    "another encoding": written(WHOLE.encode("utf-16")),
    "no text": written(b"\xff\xfe\xfa" + WHOLE.encode()),
    "half a character": written('{"owner": "\\ud800"}'),
    "a list": written(f"[{WHOLE}]"),
    "null": written("null"),
    "an empty record": written("{}"),
    "without an owner": written('{"submitted": 1.0, "shared": true}'),
    "an empty owner and no word of a shell": written('{"owner": ""}'),
    "an empty owner and not of a shell": changed(owner="", shell=False),
    "an owner that is a number": changed(owner=1),
    "an owner that is a list": changed(owner=["10.0.0.2"]),
    "an owner that is null": changed(owner=None),
    "shared in words": changed(shared="yes"),
    "pinned as a number": changed(pinned=0),
    "a ticket without end": changed(ticket=10**30),
    "very deep": written("[" * 100_000),
    "very large": written(WHOLE + " " * 70_000),
    "a folder": lambda path: path.mkdir(),
    "a link to nowhere": linked("nowhere"),
    "a link to itself": linked("job.json"),
}


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


@pytest.fixture
def supervisor(store, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    made = Supervisor(store, Limits(free_mb=0))
    yield made
    made.close()


@pytest.fixture(params=DAMAGE)
def damaged(request, store):
    """A run of the app, shared by its owner until its record was damaged."""
    run = finished_run(store, 0)
    run.job_file.unlink()
    DAMAGE[request.param](run.job_file)
    return run


def listed(index, *names):
    return [row.id for row in index.rows(viewer=names)]


def test_a_job_that_cannot_be_read_is_nobody_s(store, supervisor, damaged):
    assert damaged.job() == UNREADABLE_JOB
    for who in (OWNER, STRANGER, asker("10.0.0.1", "ann")):
        assert not allowed(damaged, who) and visible_run(store, damaged.id, who) is None
    assert listed(supervisor.index, "10.0.0.1", "ann", "") == []
    assert supervisor.index.page(5, viewer=("10.0.0.1",)).found == 0
    assert [row.id for row in supervisor.index.rows()] == [damaged.id], "the operator still finds it"
    assert not damaged.made_in_a_shell()


def test_a_job_that_cannot_be_read_is_not_written_over_nor_cleaned_away(store, supervisor, damaged):
    def content():
        return damaged.job_file.read_bytes() if damaged.job_file.is_file() else damaged.job_file.is_dir()

    before = content()
    for change in ({"pinned": False}, {"shared": True}, {"owner": "10.0.0.2"}):
        with pytest.raises(FaultError, match=r"job\.json of run .* cannot be read, so nothing was changed"):
            damaged.change_job(**change)
    with store.lock():
        assert cleaning.enforce_quota(store, supervisor.index, Limits(disk_mb=1e-6)) == []
    assert damaged.exists() and content() == before


def test_the_operator_mends_a_record_and_the_run_is_its_owner_s_again(store, supervisor, damaged):
    assert listed(supervisor.index, "10.0.0.1") == []
    shutil.rmtree(damaged.job_file, ignore_errors=True)
    damaged.job_file.unlink(missing_ok=True)
    damaged.job_file.write_text(WHOLE)
    assert allowed(damaged, OWNER) and not allowed(damaged, STRANGER)
    assert [row.id for row in supervisor.index.rows(scan=True, viewer=("10.0.0.1",))] == [damaged.id]


@contextlib.contextmanager
def out_of_files():
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open(os.devnull, os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_looks_while_the_app_is_out_of_files_sees_no_more_and_all_is_back_later(store, supervisor):
    private, shell = finished_run(store, 0), finished_run(store, 1)
    private.change_job(owner="10.0.0.1", shared=False)
    for path in (shell.job_file, shell.request):
        path.unlink()
    index = supervisor.index
    assert listed(index, "10.0.0.2") == [shell.id] and listed(index, "10.0.0.1") == [shell.id, private.id]
    with out_of_files():
        for _ in range(50):
            assert visible_run(store, private.id, STRANGER) is None and not allowed(private, STRANGER)
            assert visible_run(store, shell.id, STRANGER) is None, "not even this is certain now"
        index.note(private)
        assert listed(index, "10.0.0.2", "") == [shell.id]
    assert allowed(private, OWNER) and allowed(shell, STRANGER)
    rows = index.rows(scan=True, viewer=("10.0.0.1",))
    assert [row.id for row in rows] == [shell.id, private.id]
    assert {row.state for row in rows} == {"succeeded"} and all(row.settings for row in rows)


@pytest.mark.parametrize(
    "leave",
    [
        lambda run: None,
        lambda run: run.job_file.write_text(json.dumps(EARLIER | {"owner": ""})),
        lambda run: run.change_job(pinned=True),
        lambda run: (run.path / ORIGIN).write_text("{}"),
    ],
    ids=["no record", "an earlier record", "a record of this version", "brought in a shell"],
)
def test_a_run_that_says_it_was_made_in_a_shell_is_everybody_s(store, leave):
    run = finished_run(store, 0)
    for path in (run.job_file, run.request):
        path.unlink()
    leave(run)
    assert run.job().shell and allowed(run, STRANGER) and listed(Index(store), "10.0.0.2") == [run.id]
    assert run.made_in_a_shell() is not (run.path / ORIGIN).exists()


@pytest.mark.parametrize("left", ["request.json", "worker.json", "worker.txt"])
def test_whatever_the_app_left_of_a_run_says_that_no_shell_made_it(store, left):
    run = finished_run(store, 0)
    for path in (run.job_file, run.request):
        path.unlink()
    (run.path / left).write_text("{}")
    assert run.job() == UNREADABLE_JOB and not allowed(run, STRANGER) and not run.made_in_a_shell()


def test_what_is_recorded_says_where_a_run_was_made(store, supervisor):
    shell, asked = finished_run(store, 0), finished_run(store, 1)
    for path in (shell.job_file, shell.request):
        path.unlink()
    shell.change_job(pinned=True)
    asked.change_job(pinned=True)
    assert json.loads(shell.job_file.read_text())["shell"] is True
    assert json.loads(asked.job_file.read_text())["shell"] is False


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"ticket": "1"}', '{"ticket": 1, "pid": "x"}', '{"ticket": 1, "exit_code": "0"}'],
)
def test_no_second_worker_is_started_where_the_first_cannot_be_known(store, supervisor, content):
    run = finished_run(store, 0)
    run.change_job(ticket=1)
    run.write_worker(Worker(ticket=1, seen="another", pid=2**22 + 1))
    assert run.status().state == "succeeded"
    run.worker_file.write_text(content)
    assert run.worker() == UNREADABLE_WORKER and run.status().state == "succeeded"
    assert supervisor.index.queue(scan=True) == []


@pytest.mark.parametrize("name", ["config.json", "request.json"])
def test_a_run_whose_settings_cannot_be_read_is_not_queued_by_the_usual_ones(store, supervisor, name):
    run = finished_run(store, 3)
    if name == "request.json":
        run.folder.config.unlink()
    (run.path / name).write_text("{")
    with pytest.raises(InputError, match=f"settings of this run are damaged: {name} cannot be read"):
        supervisor.resume(run.id)
    assert run.job().ticket == 0
