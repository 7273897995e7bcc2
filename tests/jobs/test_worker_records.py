"""Who may write the record of a worker, and when: the one that it is about, and never over a newer one."""

import dataclasses
import errno
import os
import subprocess
import sys
import threading

import pytest

from rsm_app.jobs import workers, zero_gpu
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.records import Worker
from rsm_app.jobs.supervisor import Supervisor
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import small_config, wait_for
from trainers.errors import BusyError, FaultError
from trainers.processes import process_identity
from trainers.run_folder import write_json
from trainers.run_lock import hold


@pytest.fixture
def asked(store):
    """A run that was asked for and waits with ticket 1."""
    run = store.create()
    run.change_job(submitted=1.0, ticket=1)
    run.request.write_text(small_config().to_json())
    return run


@pytest.fixture
def returning(monkeypatch):
    """Make every worker a process that has ended with some exit code before it is recorded."""

    def make(code):
        def start(run, words, environment):
            process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            return process

        monkeypatch.setattr(workers, "_start", start)

    return make


def launch(store, run, ticket=1):
    with store.lock():
        workers.launch(run, ticket, "cpu", {})


def in_app(run, **changes):
    """The record of a thread of this process."""
    pid = os.getpid()
    worker = Worker(ticket=1, device="cuda:0", pid=pid, pid_identity=process_identity(pid), in_app=True)
    run.write_worker(dataclasses.replace(worker, **changes))
    return run.worker()


def test_a_worker_that_ended_before_it_was_recorded_keeps_its_exit_code(store, asked, returning):
    returning(2)
    launch(store, asked)
    wait_for(lambda: asked.worker().exit_code == 2, 60, "the exit code")
    assert asked.worker().pid and asked.status().state == "failed"


def test_without_a_thread_to_wait_for_its_end_a_worker_is_recorded_all_the_same(
    store, asked, returning, monkeypatch
):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    returning(0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    launch(store, asked)
    assert asked.worker().pid and asked.worker().exit_code is None


def test_the_end_of_an_old_worker_is_not_written_over_a_newer_one(asked):
    old = in_app(asked)
    newer = in_app(asked, ticket=2)
    asked.note_end(old, 0)
    assert asked.worker() == newer
    asked.note_end(newer, 0)
    assert asked.worker().exit_code == 0


def test_the_end_of_a_worker_is_written_under_the_lock_of_the_queue(store, asked):
    worker = in_app(asked)
    ending = threading.Thread(target=asked.note_end, args=(worker, 0))
    with store.lock():
        ending.start()
        newer = in_app(asked, ticket=2)
    ending.join(60)
    assert asked.worker() == newer


def test_a_worker_that_met_another_at_work_is_forgotten(store, asked, returning):
    """As when an app was killed before it could record the first one and another app started a second."""
    asked.write_worker(Worker(ticket=1, device="cpu"))
    returning(BusyError.exit_code)
    with hold(asked.path):  # the first one, which has not spoken yet
        launch(store, asked)
        wait_for(lambda: asked.worker().pid == 0, 60, "the record without a process")
        assert asked.status().state == "running"
    assert asked.status().state == "queued", "the first one is gone without a word"
    write_json(asked.folder.status_file, {"state": "running", "pid": 2**22 + 1, "pid_identity": "first"})
    assert asked.status().state == "interrupted", "it has spoken, and was killed"


def test_a_second_worker_of_a_ticket_takes_no_word_of_the_first_for_an_earlier_one(store, asked, returning):
    asked.write_worker(Worker(ticket=1, device="cpu", seen="long ago"))
    write_json(asked.folder.status_file, {"state": "running", "pid": 2**22 + 1, "pid_identity": "first"})
    returning(BusyError.exit_code)
    launch(store, asked)
    wait_for(lambda: asked.worker().pid == 0, 60, "the record without a process")
    assert asked.status().state == "interrupted", "the ticket is used up"


def test_a_full_disk_only_delays_what_a_lent_gpu_s_thread_has_to_say(asked, monkeypatch):
    worker, replace, refused = in_app(asked), os.replace, []

    def full(source, target):
        if len(refused) < 3:
            refused.append(target)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(zero_gpu, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(os, "replace", full)
    zero_gpu._note_end(asked, worker, 1)
    assert len(refused) == 3 and asked.worker().exit_code == 1 and not asked.worker().alive


def test_without_a_thread_for_a_lent_gpu_the_run_goes_on_waiting(asked, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(FaultError, match="tried again"):
        zero_gpu.launch(asked, 1, "cuda:0")
    assert asked.status().state == "queued"


def test_a_clock_that_was_set_back_does_not_make_a_lent_run_s_words_older_than_itself(asked):
    write_json(asked.folder.status_file, {"state": "interrupted", "heartbeat": 2000.0})
    in_app(asked, seen="2000.0", pid_started=2001.0, exit_code=0)
    write_json(asked.folder.status_file, {"state": "succeeded", "phase": "done", "heartbeat": 1000.0})
    assert asked.status().state == "succeeded"


def test_a_run_that_left_the_queue_never_gets_a_ticket_that_is_used_up(store, monkeypatch):
    run = finished_run(store, 2)
    run.folder.config.write_text(small_config(device="cpu").to_json())
    run.write_worker(Worker(ticket=1, device="cpu", pid=2**22 + 1, seen="another", exit_code=0))
    supervisor = Supervisor(store, Limits(free_mb=0))
    monkeypatch.setattr(supervisor, "tick", lambda: None)  # so it waits
    supervisor.resume(run.id)
    supervisor.stop(run.id)
    assert run.job().ticket == 0 and run.status().state == "stopped"
    supervisor.resume(run.id)
    assert run.status().state == "queued"
    supervisor.close()
