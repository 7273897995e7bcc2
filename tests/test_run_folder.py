"""Atomic writing, tolerant reading and the truth about a run's state."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import psutil
import pytest

from trainers import run_folder
from trainers.errors import FaultError
from trainers.processes import process_alive
from trainers.run_folder import (
    DAMAGED,
    RESERVE_BYTES,
    RunFolder,
    RunStatus,
    append_line,
    atomic_write,
    read_json,
    read_lines,
    write_fault,
)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def write_status(folder, **values):
    atomic_write(folder.status_file, json.dumps(values))


def test_a_live_state_without_a_process_reads_interrupted(folder):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    started = psutil.Process(process.pid).create_time()
    process.wait()
    write_status(folder, state="running", pid=process.pid, pid_started=started)
    assert folder.status().state == "interrupted"


def test_a_run_that_ends_while_it_is_looked_at_was_not_killed(folder, monkeypatch):
    write_status(folder, state="running", pid=2**22 + 1, pid_identity="worker")

    def ended(*process):
        write_status(folder, state="succeeded", pid=2**22 + 1, pid_identity="worker")
        return False

    monkeypatch.setattr(run_folder, "process_alive", ended)
    assert folder.status().state == "succeeded" and not folder.status().error


def test_the_last_word_of_a_run_takes_the_reserve_that_its_folder_held(folder, monkeypatch):
    folder.write_status(RunStatus(state="running"))
    assert folder.reserve.stat().st_size == RESERVE_BYTES
    replace = os.replace

    def full(source, target):
        if folder.reserve.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FaultError):
        folder.write_status(RunStatus(state="running", updates=3))
    folder.write_status(RunStatus(state="failed", error="The disk is full."))
    assert folder.status().error == "The disk is full." and not folder.reserve.exists()


def test_a_zombie_is_not_alive():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    started = psutil.Process(process.pid).create_time()
    deadline = 50
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE and deadline:
        os.sched_yield()
        deadline -= 0.001
    assert not process_alive(process.pid, started)
    process.wait()


def test_a_reused_pid_is_not_alive(folder):
    write_status(folder, state="running", pid=os.getpid(), pid_started=12345.0)
    assert folder.status().state == "interrupted"


def test_a_live_process_reads_running_and_stopping_after_a_request(folder):
    me = psutil.Process()
    write_status(folder, state="running", pid=me.pid, pid_started=me.create_time())
    assert folder.status().state == "running" and folder.status().live
    folder.request_stop()
    assert folder.status().state == "stopping"


@pytest.mark.parametrize("state", ["running", "stopping"])
def test_a_worker_that_died_after_a_stop_was_asked_for_is_told_so(folder, state):
    write_status(folder, state=state, pid=os.getpid(), pid_started=12345.0)
    assert "memory ran out" in folder.status().error
    folder.request_stop()
    assert folder.status().state == "interrupted" and "asked to stop" in folder.status().error
    assert "memory" not in folder.status().error


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "[" * 100_000, '{"state": "queued"}', '{"pid": 1}'])
def test_a_damaged_status_says_so(folder, content):
    folder.path.mkdir()
    assert folder.status() == RunStatus(), "none is no damage"
    folder.status_file.write_text(content, encoding="utf-8")
    assert folder.status().state == "interrupted" and folder.status().error == DAMAGED


def test_what_a_later_version_adds_to_a_status_is_no_damage(folder):
    write_status(folder, state="succeeded", unknown=1)
    assert folder.status() == RunStatus(state="succeeded")


def test_torn_lines_are_left_out_and_closed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "rew')
    assert read_lines(path) == [{"step": 1}]
    append_line(path, {"step": 3})
    assert read_lines(path) == [{"step": 1}, {"step": 3}]


def test_failed_writes_keep_the_old_file_and_leave_no_litter(tmp_path):
    path = tmp_path / "status.json"
    atomic_write(path, "old")
    target = tmp_path / "file"
    target.write_text("", encoding="utf-8")
    with pytest.raises(FaultError, match="Could not write"):
        atomic_write(target / "below", "new")
    with pytest.raises(FaultError, match="Could not write"):
        append_line(tmp_path / "missing" / "metrics.jsonl", {})
    assert path.read_text(encoding="utf-8") == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "status.json"]


def test_not_a_number_never_reaches_the_metrics(tmp_path):
    with pytest.raises(ValueError):
        append_line(tmp_path / "metrics.jsonl", {"loss": float("nan")})


def test_read_json_wants_an_object(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[1]", encoding="utf-8")
    assert read_json(path) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_failed_write_advises_what_helps_and_resumes_only_what_is_there(code, tmp_path):
    error = OSError(code, os.strerror(code))
    told = str(write_fault(tmp_path / "run" / "samples" / "pairs.jsonl", error))
    assert os.strerror(code) in told and "resume" not in told and told.endswith("then try again.")
    assert ("Free some space" in told) == (code in (errno.ENOSPC, errno.EDQUOT))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    for path in ("status.json", "samples/pairs.jsonl"):
        assert "then resume the run; what was saved is intact." in str(
            write_fault(tmp_path / "run" / path, error)
        )
