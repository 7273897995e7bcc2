"""Workers that do not end, run too long or take too much room; queues and quotas. Real processes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from rsm_app.jobs import cleaning
from rsm_app.jobs.index import Index
from rsm_app.jobs.launching import age
from rsm_app.jobs.limits import Limits, read_limits
from rsm_app.jobs.queue import in_order, places, ready
from rsm_app.jobs.records import Worker
from rsm_app.jobs.stopping import Escalation
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.jobs.workers import kill_tree
from tests.faults.many_runs import finished_run, make_finished_runs
from tests.jobs.small_runs import end_workers, ended, endless_config, gone, small_config, training, wait_for
from trainers.errors import InputError
from trainers.processes import process_age, process_identity


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    runs = RunStore(tmp_path / "runs")
    yield runs
    end_workers(runs)


def supervisor_of(store, **limits):
    """A supervisor that is moved by the test alone."""
    return Supervisor(store, Limits(**{"free_mb": 1, **limits}))


def test_a_worker_that_ignores_stop_and_sigterm_is_killed_and_says_so(store):
    supervisor = supervisor_of(store, stop_seconds=0.2)
    supervisor._escalation = Escalation(0.2, term_seconds=0.2)
    run = supervisor.submit(endless_config())
    wait_for(training(run), what="the first update")
    worker = psutil.Process(run.worker().pid)
    worker.suspend()  # from now on it reacts to nothing but SIGKILL
    supervisor.stop(run.id)
    assert run.status().state == "stopping", "a frozen worker is not dead"

    def over():
        supervisor.tick()
        return not run.status().live

    wait_for(over, 60, "the end of the frozen worker")
    assert run.status().state == "interrupted" and "asked to stop" in run.status().error and run.resumable()
    assert gone(worker)


_FAMILY = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # inherited by the children
for apart in (False, True):
    words = [sys.executable, "-c", "import time; time.sleep(600)"]
    print(subprocess.Popen(words, start_new_session=apart).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def family():
    """A process and its two children, the second in a session of its own."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _FAMILY], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    yield parent, [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
    kill_tree(parent.pid, process_identity(parent.pid))
    parent.wait(30)


def at_work_on(store, parent, leader):
    """The record of a run that a launcher and its children work on, the first of them leading."""
    run = finished_run(store, 0)
    status = {"state": "running", "pid": leader.pid, "pid_identity": process_identity(leader.pid)}
    run.folder.status_file.write_text(json.dumps(status))
    run.change_job(ticket=1)
    run.write_worker(
        Worker(1, "cuda:0+1", "another", pid=parent.pid, pid_identity=process_identity(parent.pid))
    )
    return run


def test_of_a_run_of_several_processes_all_are_killed(store, family):
    parent, children = family
    run = at_work_on(store, parent, children[1])
    run.folder.request_stop()
    escalation = Escalation(0.0, term_seconds=0.0)
    escalation.follow([run])
    assert parent.poll() is None and not any(map(gone, children)), "SIGTERM comes first"
    escalation.follow([run])
    assert parent.wait(30) == -signal.SIGKILL
    for child in children:
        wait_for(lambda child=child: gone(child), 30, "a child's end")
    assert run.status().state == "interrupted"


def test_a_device_is_taken_until_the_last_process_that_was_started_for_it_is_gone(store, family):
    parent, children = family
    run = at_work_on(store, parent, children[1])
    (waiting,) = make_waiting(store, 2)
    index = Index(store)

    def chosen():
        moving = index.moving()
        holding = [row for row in moving if row.holds]
        return [row.id for row, _ in ready(in_order(moving), holding, ("cuda:0+1",), 0)]

    assert run.status().state == "running" and chosen() == []
    children[1].kill()
    wait_for(lambda: gone(children[1]), 30, "the first process's end")
    assert run.status().state == "interrupted" and chosen() == [], "the launcher ends the others yet"
    parent.kill()
    parent.wait(30)
    assert chosen() == [waiting.id]


def test_the_age_of_a_worker_that_has_not_spoken_is_not_that_of_whoever_has_the_earlier_one_s_number(
    store, family
):
    parent, children = family
    run = at_work_on(store, parent, children[1])
    status = {"state": "interrupted", "pid": os.getpid(), "pid_identity": "another"}
    run.folder.status_file.write_text(json.dumps(status))
    assert run.status().state == "running" and run.status().pid == os.getpid()
    assert age(run, run.status()) < process_age(), "this process is older than the worker"


def make_waiting(store, *tickets):
    """Runs that wait."""
    runs = [finished_run(store, ticket) for ticket in tickets]
    for run, ticket in zip(runs, tickets, strict=True):
        run.folder.status_file.unlink()
        run.change_job(ticket=ticket)
    return runs


def test_a_worker_is_killed_with_everything_it_started(family):
    parent, children = family
    kill_tree(parent.pid, "somebody:else")
    assert parent.poll() is None, "another process that got the number is left alone"
    kill_tree(parent.pid, process_identity(parent.pid))
    assert parent.wait(30) == -signal.SIGKILL
    for child in children:
        wait_for(lambda child=child: gone(child), 30, "a child's end")


@pytest.mark.parametrize(
    ("limit", "reason"), [({"run_seconds": 1}, "A run may take 1 seconds"), ({"free_mb": 1e12}, "MB left")]
)
def test_a_run_that_takes_too_much_is_stopped_with_the_reason_and_keeps_its_results(store, limit, reason):
    run = supervisor_of(store).submit(endless_config())
    wait_for(training(run), what="the first update")
    supervisor_of(store, **limit).tick()
    wait_for(ended(run), what="the stop")
    status = run.status()
    assert status.state == "stopped" and reason in status.stop_reason
    assert run.folder.read_report()["updates"] >= 1 and run.folder.adapter.is_dir()


def test_each_owner_has_a_share_of_the_queue(store):
    finished_run(store, 0)
    supervisor = supervisor_of(store, owner_queued=2, run_seconds=1000)
    with pytest.raises(InputError, match="may take 1000 seconds"):
        supervisor.submit(small_config(budget_seconds=1001))
    with pytest.raises(InputError, match="asks for cuda:7"):
        supervisor.submit(small_config(device="cuda:7"))
    blocker = supervisor.submit(small_config(max_updates=0, budget_seconds=1000), owner="ann")
    for _ in range(2):
        supervisor.submit(small_config(), owner="ann")
    with pytest.raises(InputError, match="2 runs waiting already"):
        supervisor.submit(small_config(), owner="ann")
    assert supervisor.submit(small_config(), owner="bob").status().state == "queued"
    assert len(supervisor.index.queue()) == 3 and blocker.status().state == "running"


def test_devices_are_shared_first_come_first_served(store):
    """Rows of an index without workers: which run may start where is a matter of the rows alone."""
    runs = make_finished_runs(store, 5)
    asked = ["auto", "auto", "cpu", "cuda:1", "auto"]
    for number, (run, device) in enumerate(zip(runs, asked, strict=True), 1):
        run.folder.status_file.unlink()
        run.folder.config.write_text(small_config(device=device, budget_seconds=100).to_json())
        run.change_job(owner="ann" if number < 5 else "bob", ticket=number)
    waiting = Index(store).queue()
    assert [row.ticket for row in waiting] == [1, 2, 3, 4, 5]
    machine = ("cuda:0", "cuda:1", "cpu")

    def chosen(devices, cap=0):
        return [(row.ticket, device) for row, device in ready(waiting, [], devices, cap)]

    assert chosen(machine) == [(1, "cuda:0"), (2, "cuda:1"), (3, "cpu")]
    assert chosen(("cpu",)) == [(1, "cpu")]
    assert chosen(machine, cap=1) == [(1, "cuda:0"), (5, "cuda:1")]
    found = places(waiting, [], ("cuda:0", "cpu"))
    by_ticket = {row.ticket: found[row.id] for row in waiting}
    assert [by_ticket[n].seconds for n in (1, 2, 3, 4, 5)] == [0.0, 100.0, 0.0, None, 200.0]


def swept(store, index=None, **limits):
    """Clean up within some limits and return the ids that went."""
    with store.lock():
        return cleaning.enforce_quota(store, index or Index(store), Limits(**limits))


def test_the_quota_takes_the_oldest_and_spares_what_waits_works_or_is_pinned(store):
    runs = make_finished_runs(store, 6)
    for number, run in enumerate(runs, 1):
        (run.path / "weights").write_bytes(b"x" * 2**20)
        run.change_job(ticket=number, owner="ann")
        run.write_worker(Worker(ticket=number, seen="another", pid=2**22 + 1))
    runs[0].change_job(pinned=True)
    runs[1].change_job(ticket=7)  # waits again
    runs[2].job_file.unlink()  # made in a shell, not by the app
    index = Index(store)
    assert swept(store, index) == []
    assert swept(store, index, disk_mb=4.5) == [runs[3].id, runs[4].id]
    assert swept(store, index, disk_mb=0.001) == [runs[5].id]
    assert sorted(run.id for run in store.runs()) == [run.id for run in runs[:3]]
    assert {row.id for row in index.rows()} == {run.id for run in runs[:3]}
    assert not [path for path in store.root.iterdir() if "trash" in path.name]


def test_clean_up_counts_from_when_a_run_was_brought_or_at_work_last(store):
    """One that was imported just now never had a place in the queue, and one may be trained again."""
    again, middle, brought = make_finished_runs(store, 3)
    for number, run in enumerate((again, middle), 1):
        run.change_job(ticket=number, owner="ann")
        run.write_worker(Worker(ticket=number, seen="another", pid=2**22 + 1))
    brought.change_job(submitted=1000.0, owner="ann")
    status = {"state": "succeeded", "phase": "done", "heartbeat": 900.0}
    again.folder.status_file.write_text(json.dumps(status))
    for run in (again, middle, brought):
        (run.path / "weights").write_bytes(b"x" * 2**20)
    assert swept(store, disk_mb=2.5) == [middle.id]
    assert swept(store, disk_mb=1.5) == [again.id]
    assert brought.exists()


def test_limits_come_from_the_environment_and_wrong_ones_are_reported_together():
    limits = read_limits({"RSM_MAX_RUN_SECONDS": "60", "RSM_DISK_QUOTA_MB": " 1e3 ", "RSM_MIN_FREE_MB": ""})
    assert (limits.run_seconds, limits.disk_mb, limits.free_mb) == (60, 1000, Limits().free_mb)
    with pytest.raises(InputError) as refusal:
        read_limits({"RSM_MAX_RUN_SECONDS": "soon", "RSM_MAX_QUEUED_PER_OWNER": "-1"})
    assert len(refusal.value.problems) == 2 and "'soon'" in str(refusal.value)


def listed_limits(readme):
    """Return (default, default on a Space) of every variable of the table; a row may have several of them."""
    found = {}
    for line in readme.splitlines():
        if line.startswith("| `RSM_"):
            names, *values = (cell.split(", ") for cell in line.strip("| ").split(" | ")[:3])
            for number, name in enumerate(names):
                found[name.strip("`")] = [cell[number % len(cell)] for cell in values]
    return found


def test_every_limit_is_in_the_readme_with_its_defaults(repository):
    listed = listed_limits((repository / "README.md").read_text(encoding="utf-8"))
    for field in dataclasses.fields(Limits):
        defaults = [f"{value:g}" for value in (field.default, field.metadata["space"])]
        assert listed[field.metadata["variable"]] == defaults, field.name
