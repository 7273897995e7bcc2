"""Real worker processes: started, stopped, killed, resumed, raced."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rsm_app.jobs import supervisor
from tests.jobs.small_runs import endless_config, small_config, wait_for
from trainers.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def training(run):
    return lambda: run.folder.read_metrics()


def ended(run):
    return lambda: not run.status().live


def test_a_run_starts_apart_from_this_process_without_tokens_and_is_reaped(store, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SOME_API_KEY", "SOME_SECRET"):
        monkeypatch.setenv(name, "do-not-pass-on")
    run = supervisor.start(store, small_config(), prompts="a red circle\na blue square\n")
    assert run.status().live, "a started run is live before its worker has written anything"
    process = psutil.Process(run.worker().pid)
    environment = wait_for(lambda: process.environ(), what="the worker's environment")
    assert "do-not-pass-on" not in environment.values()
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert process.nice() >= supervisor.NICENESS or os.nice(0) > supervisor.NICENESS
    assert os.readlink(f"/proc/{process.pid}/fd/0") == os.devnull
    wait_for(ended(run), what="the end of the run")
    status = run.status()
    assert status.state == "succeeded", (status, run.log_tail(20))
    assert run.settings()["prompts"] == str(run.prompts) and len(run.folder.read_metrics()) == 2
    assert run.folder.read_report()["updates"] == 2 and run.folder.read_pairs()
    wait_for(lambda: run.worker().exit_code == 0, 10, "the exit code")
    assert not psutil.pid_exists(process.pid) or not run.worker().alive, "no zombie is left"


def test_a_second_start_is_refused_with_the_way_to_stop_the_first_which_keeps_its_results(store):
    run = supervisor.start(store, endless_config())
    with pytest.raises(supervisor.BusyError) as refusal:
        supervisor.start(store, small_config())
    assert run.id in str(refusal.value) and "Stop" in str(refusal.value)
    assert [one.id for one in store.runs()] == [run.id]
    wait_for(training(run), what="the first update")
    supervisor.stop(store, run.id)
    assert run.status().state == "stopping"
    wait_for(ended(run), what="the stop")
    assert run.status().state == "stopped"
    assert run.folder.read_report()["updates"] >= 1 and run.folder.adapter.is_dir()
    with pytest.raises(InputError, match="nothing to stop"):
        supervisor.stop(store, run.id)


def test_a_killed_worker_reads_interrupted_and_can_be_resumed(store):
    run = supervisor.start(store, small_config(max_updates=10))
    wait_for(
        lambda: len(run.folder.read_metrics()) >= 2 and list(run.folder.checkpoints.glob("*.safetensors")),
        what="a checkpoint",
    )
    os.kill(run.worker().pid, signal.SIGKILL)
    wait_for(ended(run), 10, "the death")
    assert run.status().state == "interrupted" and supervisor.resumable(run) and store.live() is None
    supervisor.resume(store, run.id)
    assert run.status().live
    wait_for(ended(run), what="the end of the resumed run")
    assert run.status().state == "succeeded" and run.folder.read_report()["updates"] == 10
    with pytest.raises(InputError, match="no checkpoint"):
        supervisor.resume(store, run.id)


def test_a_worker_that_dies_at_once_is_told_with_its_own_words(store, tmp_path):
    config = small_config(prompts=str(tmp_path / "gone.txt"))
    run = supervisor.start(store, config)
    wait_for(ended(run), 60, "the failure")
    wait_for(lambda: run.worker().exit_code == 2, 10, "the exit code")
    status = run.status()
    assert status.state == "failed" and "gone.txt" in status.error and "exit code 2" in status.error
    assert not supervisor.resumable(run) and store.live() is None


_RACE = """
import sys, time
from rsm_app.jobs import supervisor
from rsm_app.jobs.store import RunStore
from tests.jobs.small_runs import endless_config
config, store = endless_config(), RunStore(sys.argv[1])
time.sleep(max(0, float(sys.argv[2]) - time.time()))
try:
    print("started", supervisor.start(store, config).id)
except supervisor.BusyError as error:
    print("busy", error.run_id)
"""


def test_of_two_starts_at_the_same_moment_from_two_processes_one_wins(store):
    moment = str(time.time() + 4)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, str(store.root), moment],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    words = sorted(racer.communicate(timeout=60)[0].split() for racer in racers)
    assert [word[0] for word in words] == ["busy", "started"] and words[0][1] == words[1][1]
    run = store.runs()[0]
    assert len(store.runs()) == 1 and run.worker().alive, "the worker outlives the process that started it"
