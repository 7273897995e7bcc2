"""A disk that really fills up under a run of the app: a small file system of its own, made for the test.

Behind ``slow`` because it needs a system that lets a user make a mount namespace (``unshare -rm``); the
default tests fill a quota of file sizes instead (``test_faults``).
"""

import os
import shlex
import subprocess
import sys

import pytest

from tests.e2e.shell import ROOT

_STORY = """
import shutil, sys, time
from pathlib import Path
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.states import ENDED
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from tests.jobs.small_runs import endless_config, small_config, wait_for
from trainers.errors import StudioError

store = RunStore(Path(sys.argv[1]) / "runs")
supervisor = Supervisor(store, Limits(free_mb=0))
supervisor.keep_running()  # as the app does, also while the disk is full
run = supervisor.submit(endless_config())
wait_for(lambda: run.folder.read_metrics() and list(run.folder.checkpoints.glob("*.safetensors")))
filler = store.root.parent / "filler"


def fill():
    try:
        with open(filler, "ab", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
    except OSError:
        pass


fill()
wait_for(lambda: run.status().state in ENDED)
status = run.status()
print(status.state, "|", status.error)
assert status.state == "failed" and ("space" in status.error), status
assert supervisor.index.rows()[0].state == "failed"
fill()  # the reserve, too, that the run gave up for its last word
try:
    supervisor.submit(small_config())
except StudioError as error:
    print("refused:", error)
else:
    raise AssertionError("a run was taken on a full disk")
assert len(store.names()) == 1
updates = len(run.folder.read_metrics())
filler.unlink()
supervisor.resume(run.id)
wait_for(lambda: len(run.folder.read_metrics()) > updates + 1)
supervisor.stop(run.id)
wait_for(lambda: run.status().state in ENDED)
print(run.status().state, run.folder.read_report()["updates"])
assert run.status().state == "stopped" and run.folder.read_report()["updates"] > updates
"""


@pytest.mark.slow
def test_a_full_file_system_is_survived(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=40m none {shlex.quote(str(disk))}"
    story = shlex.join([sys.executable, "-c", _STORY, str(disk)])
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} && exec {story}"],
        cwd=ROOT,
        env={**os.environ, "RSM_DEVICES": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stdout
