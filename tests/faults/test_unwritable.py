"""A full or a read-only folder for each thing that the app writes: a sentence each, and the rest goes on.

The file systems are real ones, made for a child in a mount namespace of its own (``unshare -rm``); where the
system lets nobody make one, the tests are skipped.
"""

import json
import shlex
import subprocess
import sys

import pytest

from tests.e2e.shell import ROOT
from trainers.failures import CLOSED, DISK

_STORY = """
import dataclasses, json, os, sys, tempfile
from pathlib import Path

import gradio as gr
from PIL import Image

place, kind = Path(sys.argv[1]), sys.argv[2]
runs, writable = place / "runs", Path(sys.argv[3])
said = {}


def attempt(name, action):
    try:
        said[name] = ["done", str(action())]
    except Exception as error:
        said[name] = [type(error).__name__, str(error)]


from rsm_app.jobs import places
from rsm_app.jobs.base_samples import check_spread
from rsm_app.jobs.index import Index
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui.cached import save_whole
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import small_config
from trainers.rewards.judge import AnswerStore
from trainers.run_folder import RunFolder, write_json

picture = Image.effect_noise((64, 64), 50).convert("RGB")
attempt("submit", lambda: Supervisor(RunStore(runs), Limits(free_mb=0)).submit(small_config()))
attempt("list", lambda: len(Index(RunStore(place)).rows(scan=True)))
attempt("picture", lambda: save_whole(picture, str(place / "gradio"), format="png"))
attempt("stop file", lambda: RunFolder(place).request_stop("why"))
attempt("push.json", lambda: write_json(place / "push.json", {}))
attempt("answers", lambda: AnswerStore(place / "cache" / "judge.sqlite").put("a", 1.0))
attempt("uploads", lambda: places.settle({"GRADIO_TEMP_DIR": str(place / "gradio")}))
os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = os.environ["HOME"] = str(place / "home")
given = {"XDG_CACHE_HOME": str(place / "home")}
attempt("caches", lambda: places.settle(given) or (given.get("HF_HOME"), given.get("MPLCONFIGDIR")))
tempfile.tempdir = str(place)
attempt("spread", lambda: check_spread(small_config(), "a red circle"))
tempfile.tempdir = None
os.environ["RSM_RUNS_DIR"] = str(runs)
finished_run(RunStore(writable), 1)  # whose index cannot be written while the run can be listed
(writable / ".index").symlink_to(place / "index")
attempt("index", lambda: [row.state for row in Index(RunStore(writable)).rows(scan=True)])
print(json.dumps(said))
"""


def namespace(script):
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=280
    )


@pytest.fixture(scope="module")
def allowed():
    try:
        done = namespace("mount -t tmpfs tmpfs /mnt")
    except OSError:
        done = None
    if done is None or done.returncode:
        pytest.skip("this system lets nobody make a file system for a test")


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_each_thing_that_cannot_be_written_is_told_or_done_without(allowed, kind, tmp_path):
    place = tmp_path / "place"
    (tmp_path / "writable").mkdir()
    place.mkdir()
    made = {
        "full": "mount -t tmpfs -o size=64k tmpfs {0} && (cat /dev/zero > {0}/filler 2>/dev/null || true)",
        "read-only": "mount -t tmpfs -o ro tmpfs {0}",
    }[kind].format(shlex.quote(str(place)))
    story = [sys.executable, "-c", _STORY, str(place), kind, str(tmp_path / "writable")]
    done = namespace(f"{made} && exec {shlex.join(story)}")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    words = "No space left" if kind == "full" else "Read-only file system"
    assert said["submit"][0] == "FaultError" and words in said["submit"][1]
    assert "RSM_RUNS_DIR" in said["submit"][1] or "folder" in said["submit"][1]
    assert said["list"] == ["done", "0"] and said["index"] == ["done", "['succeeded']"]
    sentence = DISK if kind == "full" else CLOSED.partition("}")[2].partition(" (")[0]
    assert said["picture"][0] == "Error" and sentence in said["picture"][1]
    for name in ("stop file", "push.json"):
        assert said[name][0] == "FaultError" and words in said[name][1]
        assert ("Free some space" in said[name][1]) is (kind == "full")
    assert said["answers"][0] == "done"
    if kind == "read-only":
        assert said["uploads"][0] == "InputError" and "GRADIO_TEMP_DIR" in said["uploads"][1]
        assert str(place) not in said["caches"][1]
    assert said["caches"][0] == "done"
    assert said["spread"][0] == "FaultError" and sentence in said["spread"][1]
