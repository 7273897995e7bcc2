"""``kill -9`` at any moment, then ``resume``: the same adapter, bit for bit, as the uninterrupted run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.e2e.shell import ROOT, command, lines, read, settings, trainers
from trainers.run_folder import RunFolder

ADAPTER = "adapter/pytorch_lora_weights.safetensors"
UPDATES = 5


def words(folder, estimator="rsm_zeroth_order_flow", reward="brightness", **changes):
    base = ["train", "--estimator", estimator, "--reward", reward, "--budget-seconds", "600"]
    return [*base, *settings(max_updates=UPDATES, **changes), "--out", str(folder)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    result = trainers(*words(folder))
    assert result.returncode == 0, result.stderr
    return folder


def launch(*words) -> subprocess.Popen:
    return subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


# The run itself does at the moment what would be done to it: whoever looks from outside may come too late.
_STRUCK = """
import os, signal, sys
from trainers import cli
from trainers.progress import ProgressBar
from trainers.run_folder import RunFolder
blow, phase, updates, *words = sys.argv[1:]
show, struck = ProgressBar.show, []
def strike(bar, status):
    show(bar, status)
    if not struck and status.phase == phase and status.updates >= int(updates):
        struck.append(status)
        RunFolder(words[-1]).request_stop() if blow == "stop" else os.kill(os.getpid(), int(blow))
ProgressBar.show = strike
sys.exit(cli.main(words))
"""


def struck(blow, phase, updates, *words) -> int:
    """Run until it is stopped or sent a signal at a moment, and return its exit code."""
    process = launch(sys.executable, "-c", _STRUCK, str(blow), phase, str(updates), *words)
    return process.wait(timeout=300)


def resume_until_done(folder) -> None:
    result = trainers("resume", str(folder))
    assert result.returncode == 0, result.stderr
    assert read(folder / "status.json")["state"] == "succeeded"


def assert_same(folder, reference) -> None:
    assert (folder / ADAPTER).read_bytes() == (reference / ADAPTER).read_bytes()
    assert [r["step"] for r in lines(folder / "metrics.jsonl")] == list(range(1, UPDATES + 1))
    mine, theirs = read(folder / "report.json"), read(reference / "report.json")
    assert mine["after"] == theirs["after"] and mine["paired"] == theirs["paired"]
    assert mine["images_sampled"] == theirs["images_sampled"]


MOMENTS = {
    "while the baseline is drawn": ("baseline", 0),
    "after the first update": ("train", 1),
    "between later updates": ("train", 3),
    "while the result is evaluated": ("evaluate", UPDATES),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_resumes_to_the_same_adapter(moment, reference, tmp_path):
    folder = tmp_path / "run"
    assert struck(int(signal.SIGKILL), *MOMENTS[moment], *words(folder)) == -signal.SIGKILL
    assert RunFolder(folder).status().state == "interrupted"
    resume_until_done(folder)
    assert_same(folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_kills_one_after_another(seed, reference, tmp_path):
    draw = random.Random(seed)
    folder = tmp_path / "run"
    process = launch(*command(*words(folder)))
    for _ in range(3):
        time.sleep(draw.uniform(0.0, 14.0))
        process.kill()
        process.wait()
        if not (folder / "config.json").exists():
            process = launch(*command(*words(folder)))
            continue
        if RunFolder(folder).status().state == "succeeded":
            break
        process = launch(*command("resume", str(folder)))
    process.wait(timeout=300)
    if RunFolder(folder).status().state != "succeeded":
        resume_until_done(folder)
    assert_same(folder, reference)


def test_first_order_state_survives_a_kill(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = {"estimator": "rsm_first_order_flow"}
    assert trainers(*words(whole, **options)).returncode == 0
    assert struck(int(signal.SIGKILL), "train", 2, *words(broken, **options)) == -signal.SIGKILL
    resume_until_done(broken)
    assert (broken / ADAPTER).read_bytes() == (whole / ADAPTER).read_bytes()


def test_a_stop_request_keeps_results_and_can_be_continued(reference, tmp_path):
    folder = tmp_path / "run"
    assert struck("stop", "train", 1, *words(folder)) == 0
    assert RunFolder(folder).status().state == "stopped"
    report = read(folder / "report.json")
    assert 1 <= report["updates"] <= UPDATES and (folder / ADAPTER).exists()
    resume_until_done(folder)
    assert_same(folder, reference)


@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_is_a_stop_request(blow, reference, tmp_path):
    folder = tmp_path / "run"
    assert struck(int(blow), "train", 1, *words(folder)) == 0
    assert RunFolder(folder).status().state == "stopped"
    assert (folder / ADAPTER).exists() and read(folder / "report.json")["updates"] >= 1
    resume_until_done(folder)
    assert_same(folder, reference)
