"""Which folders an index reads again: what can change at once, the many others a part at a time."""

import json
import os
import shutil

import pytest

from rsm_app.jobs import scanning
from rsm_app.jobs.index import Index
from rsm_app.jobs.store import Run, RunStore
from tests.faults.many_runs import finished_run, make_finished_runs

MANY = 60


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


@pytest.fixture
def looked_at(monkeypatch):
    """The folders whose files were looked at, and parts of ten folders with no time between them."""
    found, stamp = [], scanning.stamp

    def seen(folder):
        found.append(folder.name)
        return stamp(folder)

    monkeypatch.setattr(scanning, "stamp", seen)
    monkeypatch.setattr(scanning, "PART", 10)
    return found


@pytest.fixture
def due(monkeypatch):
    """Let every read be one at which the next part is due."""
    monkeypatch.setattr(scanning, "PERIOD_SECONDS", -1.0)


def withdrawn(store, number):
    """A run that somebody queued and took out again."""
    run = Run(store.root / f"20260201-{number:06d}-abcdef")
    run.path.mkdir(parents=True)
    run.request.write_text('{"model": "tiny-flow"}')
    run.job_file.write_text(json.dumps({"owner": "ann", "submitted": 1.0, "ticket": 0, "withdrawn": True}))
    return run


def test_many_runs_at_rest_are_not_looked_at(store, looked_at):
    for number in range(MANY):
        withdrawn(store, number)
    index = Index(store)
    assert len(index.rows()) == MANY and {row.state for row in index.rows()} == {"stopped"}
    looked_at.clear()
    for _ in range(20):
        assert index.moving() == [] and index.last_ticket() == 0
    assert looked_at == []


def test_what_came_at_once_is_read_once(store, looked_at, due):
    index = Index(store)
    assert index.rows() == []
    for number in range(MANY):
        withdrawn(store, number)
    assert len(index.rows()) == MANY
    looked_at.clear()
    index.moving()
    index.moving()
    assert len(looked_at) == 20, "two parts of ten"


def test_a_folder_that_was_met_before_it_held_a_run_is_found_by_its_name_at_once(store):
    index = Index(store)
    (store.root / "20260101-000001-abcdef").mkdir(parents=True)
    assert index.rows() == [] and index.row("20260101-000001-abcdef") is None
    shutil.rmtree(store.root / "20260101-000001-abcdef")
    index.moving()
    (store.root / "20260101-000001-abcdef").mkdir()
    assert index.moving() == [], "the change of the directory is used up while the folder is empty"
    run = Run(store.root / "20260101-000001-abcdef")
    run.request.write_text('{"model": "tiny-flow"}')
    run.job_file.write_text(json.dumps({"owner": "ann", "submitted": 1.0, "ticket": 0, "withdrawn": True}))
    assert index.row(run.id).state == "stopped"


def test_one_run_is_told_as_its_folder_is_now(store):
    run = withdrawn(store, 0)
    index = Index(store)
    assert index.rows()[0].pinned is False
    run.change_job(pinned=True)
    assert index.row(run.id).pinned is True
    shutil.rmtree(run.path)
    assert index.row(run.id) is None


@pytest.mark.parametrize("name", ["", "x", "../runs", ".index", "20260101-000001-abcdef"])
def test_the_name_of_no_run_has_no_row(store, name):
    withdrawn(store, 0)
    assert Index(store).row(name) is None


def test_now_and_then_a_part_of_them_is(store, looked_at, due):
    runs = [withdrawn(store, number) for number in range(MANY)]
    index = Index(store)
    index.moving()
    looked_at.clear()
    index.moving()
    assert sorted(looked_at) == [run.id for run in runs[-10:]]
    for _ in range(MANY // 10 - 1):
        index.moving()
    assert sorted(looked_at) == [run.id for run in runs], "each of them in its turn"
    index.moving()
    index.moving()
    assert len(looked_at) > MANY, "and again from the newest one on"


def test_what_another_process_does_to_an_old_run_is_seen_in_its_turn(store, looked_at, due):
    runs = make_finished_runs(store, MANY)
    index = Index(store)
    index.moving()
    status = {"state": "failed", "phase": "train", "error": "It broke."}
    runs[3].folder.status_file.write_text(json.dumps(status))
    for _ in range(MANY // 10 + 1):
        index.moving()
    assert index.row(runs[3].id).error == "It broke."


def test_runs_that_come_and_go_are_seen_at_once(store, looked_at):
    runs = make_finished_runs(store, MANY)
    index = Index(store)
    assert len(index.rows()) == MANY
    shutil.rmtree(runs[0].path)
    new = finished_run(store, MANY + 5)
    os.utime(store.root, ns=(1, 1))  # a time of change that no clock gave
    rows = {row.id for row in index.rows()}
    assert runs[0].id not in rows and new.id in rows and len(rows) == MANY


def test_a_folder_that_becomes_a_run_only_later_is_seen_without_another_change(store, looked_at, due):
    make_finished_runs(store, 3)
    index = Index(store)
    folder = store.root / "20260301-000000-abcdef"
    folder.mkdir()
    index.rows()
    withdrawn_later = Run(folder)
    withdrawn_later.job_file.write_text(json.dumps({"owner": "ann", "submitted": 1.0}))
    withdrawn_later.request.write_text('{"model": "tiny-flow"}')
    assert index.row(folder.name) is not None


def test_a_folder_that_came_within_one_tick_of_the_file_system_s_clock_is_seen(store, looked_at, due):
    make_finished_runs(store, 3)
    index = Index(store)
    index.rows()
    before = os.stat(store.root)
    new = finished_run(store, 9)
    os.utime(store.root, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had changed
    index.rows()
    assert index.row(new.id) is not None


def test_a_new_process_looks_at_everything_once(store, looked_at):
    runs = make_finished_runs(store, MANY)
    Index(store).rows()
    runs[3].folder.status_file.write_text('{"state": "failed", "phase": "train", "error": "It broke."}')
    assert Index(store).row(runs[3].id).error == "It broke."
