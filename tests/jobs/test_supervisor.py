"""Real worker processes: queued, started, stopped, killed, resumed, extended, raced."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rsm_app.jobs import workers
from rsm_app.jobs.supervisor import Supervisor
from tests.jobs.small_runs import ended, endless_config, in_state, small_config, training, wait_for
from trainers.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_starts_apart_from_this_process_without_tokens_and_is_reaped(supervisor, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SOME_API_KEY", "SOME_SECRET"):
        monkeypatch.setenv(name, "do-not-pass-on")
    run = supervisor.submit(small_config(), prompts="a red circle\na blue square\n", owner="ann")
    assert run.status().state == "running", "a started run is live before its worker has written anything"
    process = psutil.Process(run.worker().pid)
    environment = wait_for(lambda: process.environ(), what="the worker's environment")
    assert "do-not-pass-on" not in environment.values()
    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid != os.getsid(0)
    assert process.nice() >= min(workers.NICENESS, os.nice(0))
    assert os.readlink(f"/proc/{process.pid}/fd/0") == os.devnull
    wait_for(ended(run), what="the end of the run")
    status = run.status()
    assert status.state == "succeeded", (status, run.log_tail(20))
    assert run.settings()["prompts"] == str(run.prompts) and len(run.folder.read_metrics()) == 2
    assert run.folder.read_report()["updates"] == 2 and run.folder.read_pairs()
    wait_for(lambda: run.worker().exit_code == 0, 10, "the exit code")
    assert not psutil.pid_exists(process.pid) or not run.worker().alive, "no zombie is left"
    (row,) = supervisor.index.rows()
    assert (row.owner, row.state, row.device) == ("ann", "succeeded", "cpu") and row.bytes > 0


def test_runs_wait_their_turn_can_leave_the_queue_and_follow_one_another(supervisor):
    first = supervisor.submit(endless_config())
    second, third, fourth = (supervisor.submit(small_config(max_updates=1)) for _ in range(3))
    assert [run.status().state for run in (first, second, third)] == ["running", "queued", "queued"]
    places = [supervisor.place(run.id) for run in (second, third, fourth)]
    assert [place.position for place in places] == [1, 2, 3] and places[0].length == 3
    assert places[0].seconds > 0 and places[1].seconds == places[0].seconds + 900
    supervisor.stop(third.id)
    assert third.status().state == "stopped" and "before it began" in third.status().message
    assert supervisor.place(third.id) is None and supervisor.place(fourth.id).position == 2
    wait_for(training(first), what="the first update")
    supervisor.stop(first.id)
    assert first.status().state in ("stopping", "stopped")
    wait_for(in_state(second, "running"), what="the next one's start")
    assert first.status().state == "stopped" and first.folder.read_report()["updates"] >= 1
    assert first.folder.adapter.is_dir() and third.status().state == "stopped"
    with pytest.raises(InputError, match="nothing to stop"):
        supervisor.stop(first.id)
    supervisor.stop(fourth.id)
    wait_for(ended(second), what="the end of the second run")
    assert second.status().state == "succeeded"
    supervisor.resume(third.id)
    wait_for(ended(third), what="the end of the resumed run")
    assert third.status().state == "succeeded" and fourth.status().state == "stopped"


def test_a_killed_worker_reads_interrupted_at_once_and_can_be_resumed_and_extended(supervisor):
    run = supervisor.submit(small_config(max_updates=6))
    wait_for(lambda: len(run.folder.read_metrics()) >= 2, what="two updates")
    process = psutil.Process(run.worker().pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert run.status().state == "interrupted" and "killed" in run.status().error and run.resumable()
    supervisor.resume(run.id)
    wait_for(ended(run), what="the end of the resumed run")
    assert run.status().state == "succeeded" and run.folder.read_report()["updates"] == 6
    with pytest.raises(InputError, match="nothing to resume"):
        supervisor.resume(run.id)
    wall = run.folder.read_report()["wall_seconds"]
    supervisor.extend(run.id, 300)  # far more than a start takes on a busy machine
    wait_for(lambda: len(run.folder.read_metrics()) >= 7, what="an update more")
    settings = run.settings()
    assert settings["max_updates"] == 0 and abs(settings["budget_seconds"] - wall - 300) < 0.01
    supervisor.stop(run.id)
    wait_for(ended(run), what="the stop")
    assert run.status().state == "stopped" and run.folder.read_report()["updates"] >= 7


def test_a_worker_that_refuses_is_told_with_its_own_words(supervisor):
    run = supervisor.submit(small_config(), prompts="# a heading and no prompt\n")
    wait_for(in_state(run, "failed"), 60, "the failure")
    status = run.status()
    assert "holds no prompts" in status.error and not status.error.startswith("Error")
    assert not run.resumable() and "holds no prompts" in supervisor.index.rows()[0].error


def test_an_app_that_comes_back_finds_its_worker_and_goes_on_with_the_queue(supervise, store):
    before = supervise()
    first = before.submit(small_config(max_updates=3))
    second = before.submit(small_config(max_updates=1))
    before.close()
    wait_for(ended(first), what="the end of the first run")
    assert second.status().state == "queued", "without an app the queue stands still"
    wait_for(lambda: not first.worker().alive, 60, "the end of its process, which holds the device")
    after = Supervisor(store)
    after.tick()
    assert second.status().state == "running" and store.run(first.id).status().state == "succeeded"
    wait_for(ended(second), what="the end of the second run")
    after.close()


_RACE = """
import sys
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from tests.jobs.small_runs import endless_config
config, supervisor = endless_config(), Supervisor(RunStore(sys.argv[1]))
supervisor.index.rows()
print("ready", flush=True)
sys.stdin.readline()
run = supervisor.submit(config)
for _ in range(20):
    supervisor.tick()
print(run.id, run.status().state)
"""


def test_of_two_apps_that_start_at_the_same_moment_one_starts_a_worker(store):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, str(store.root)],
            cwd=ROOT,
            env={**os.environ, "RSM_DEVICES": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    words = [racer.communicate(timeout=120)[0].split() for racer in racers]
    states = {name: store.run(name).status().state for name, _ in words}
    assert sorted(states.values()) == ["queued", "running"] and len(store.runs()) == 2
    assert sum(run.worker().alive for run in store.runs()) == 1, "and it outlives the process that started it"
