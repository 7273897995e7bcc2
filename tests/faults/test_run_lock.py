"""Two processes never work on one run folder, and a dead one is in nobody's way."""

import subprocess
import sys

import pytest

from tests.e2e.shell import ROOT, settings, trainers
from trainers.errors import FaultError, InputError
from trainers.run_lock import hold, try_lock, unlock

_HOLDER = """
import sys
from pathlib import Path
from trainers.run_lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path / 'run'`` until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "run")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_one_holder_at_a_time_and_a_killed_one_lets_go(holder, tmp_path):
    run = tmp_path / "run"
    assert try_lock(run) is None
    with pytest.raises(InputError, match="still at work in another process"), hold(run):
        raise AssertionError("both hold it")
    holder.kill()
    holder.wait()
    with hold(run):
        assert try_lock(run) is None, "nor may a second session of this process"
    unlock(try_lock(run))


def test_a_worker_refuses_a_run_that_another_process_is_at_work_on(holder, tmp_path):
    run = tmp_path / "run"
    words = ["train", "--budget-seconds", "600", *settings(max_updates=1), "--out", str(run)]
    refused = trainers(*words)
    assert refused.returncode == 3 and "still at work in another process" in refused.stderr
    assert [path.name for path in run.iterdir()] == [".lock"]
    (run / "config.json").write_text("{}", encoding="utf-8")
    refused = trainers("resume", str(run))
    assert refused.returncode == 3 and "still at work in another process" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_place_that_cannot_hold_a_lock_is_named(tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(FaultError, match="Could not write"):
        try_lock(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="is a file"), hold(tmp_path / "file"):
        raise AssertionError("a file was locked")


_FORKING = """
import os, signal, sys
from pathlib import Path
from rsm_app.jobs.store import RunStore
from trainers.run_lock import hold, try_lock
root = Path(sys.argv[1])
with hold(root / "run"), RunStore(root).lock():
    child = os.fork()  # as ZeroGPU does at any moment, whatever other threads have open
    if not child:
        signal.pause()
try:
    assert try_lock(root / "run") is not None
    signal.alarm(20)  # a lock that is kept would let this wait for ever
    with RunStore(root).lock():
        print("free")
finally:
    os.kill(child, signal.SIGKILL)
"""


def test_a_process_forked_meanwhile_keeps_no_lock(tmp_path):
    words = [sys.executable, "-c", _FORKING, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "free\n", done.stderr
