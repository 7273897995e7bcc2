"""Run ids are names and never paths; what is secret stays out of a worker."""

import dataclasses
import json
import os

import pytest

from rsm_app.jobs.records import UNREADABLE_JOB, UNREADABLE_WORKER, Job, Worker
from rsm_app.jobs.store import RunStore, new_run_id, valid_run_id


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../x", "a/b", "a\\b", "-x", "_x", "a.b", "a b", "a\n", "a" * 65, "é", None, 3]
)
def test_what_is_not_a_name_is_no_run_id(text):
    assert not valid_run_id(text)


def test_new_ids_are_valid_distinct_and_sort_by_time():
    ids = [new_run_id() for _ in range(50)]
    assert all(valid_run_id(run_id) for run_id in ids) and len(set(ids)) == 50
    times = [run_id[:-4] for run_id in ids]
    assert times == sorted(times) and len(set(times)) > 1, "within a second as well"


def test_only_folders_with_settings_inside_the_directory_are_runs(tmp_path):
    store = RunStore(tmp_path / "runs")
    assert store.runs() == []
    outside = tmp_path / "outside"
    for folder in (store.root / "one", store.root / "empty", outside):
        folder.mkdir(parents=True)
    for folder in (store.root / "one", outside):
        (folder / "config.json").write_text("{}")
    os.symlink(outside, store.root / "link")
    assert [run.id for run in store.runs()] == ["one"]
    assert store.run("link") is None and store.run("empty") is None and store.run("../outside") is None


def silent_worker(tmp_path, exit_code, words):
    """A run whose worker is gone without having written a status."""
    run = RunStore(tmp_path).create()
    run.request.write_text("{}")
    run.worker_file.write_text(json.dumps({"pid": 2**22 + 1, "ticket": 1, "exit_code": exit_code}))
    run.worker_log.write_text(words)
    return run


WORDS = """Loading
Traceback (most recent call last):
  File "x.py", line 1, in y
    z()
Error: no such thing
"""


@pytest.mark.parametrize("exit_code", [1, 2, None])
def test_a_worker_that_refused_is_a_failure_with_its_last_words(tmp_path, exit_code):
    status = silent_worker(tmp_path, exit_code, WORDS).status()
    assert status.state == "failed" and not status.live
    assert "no such thing" in status.error
    assert "Traceback" not in status.error and "x.py" not in status.error


@pytest.mark.parametrize("exit_code", [-9, -15, None])
def test_a_worker_that_was_killed_before_its_first_word_is_interrupted(tmp_path, exit_code):
    run = silent_worker(tmp_path, exit_code, "Loading\n")
    assert run.status().state == "interrupted" and "killed" in run.status().error and run.resumable()


def test_a_worker_that_was_killed_after_it_was_asked_to_stop_is_told_so(tmp_path):
    run = silent_worker(tmp_path, -9, "Loading\n")
    run.folder.request_stop()
    assert run.status().state == "interrupted" and "asked to stop" in run.status().error
    assert "memory" not in run.status().error and run.resumable()


@pytest.mark.parametrize("words", ["", "Loading\n", "Error: out of paint\n"])
@pytest.mark.parametrize("exit_code", [None, 1])
def test_what_an_earlier_worker_said_is_not_taken_for_the_reason_of_a_later_one(tmp_path, exit_code, words):
    run = silent_worker(tmp_path, exit_code, WORDS)
    run.write_worker(dataclasses.replace(run.worker(), log_start=run.log_size()))
    with open(run.worker_log, "a") as log:
        log.write(words)
    status = run.status()
    assert "no such thing" not in status.error
    assert status.state == ("failed" if exit_code or "Error" in words else "interrupted")
    assert "out of paint" in status.error or "Error" not in words


def test_a_request_that_never_got_its_ticket_can_be_queued_again(tmp_path):
    run = RunStore(tmp_path).create()
    run.request.write_text("{}")
    assert run.status().state == "interrupted" and run.resumable()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"ticket": "3", "owner": 5, "limits": [1]}'])
def test_damaged_records_are_known_as_such(tmp_path, content):
    run = RunStore(tmp_path).create()
    assert run.job() == Job(shell=True) and run.worker() == Worker()
    for path in (run.job_file, run.worker_file):
        path.write_text(content)
    assert run.job() == UNREADABLE_JOB and run.worker() == UNREADABLE_WORKER
