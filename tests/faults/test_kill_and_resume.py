"""``kill -9`` at any moment, then ``resume``: the same adapter, bit for bit, as the uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
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


def launch(folder, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the moment to kill never came"
        if process.poll() is not None:
            return
        time.sleep(0.01)


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
    "while the baseline is drawn": lambda run: run.status().phase == "baseline",
    "after the first update": lambda run: len(run.read_metrics()) >= 1,
    "between later updates": lambda run: len(run.read_metrics()) >= 3,
    "while the result is evaluated": lambda run: run.status().phase == "evaluate",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_resumes_to_the_same_adapter(moment, reference, tmp_path):
    folder = tmp_path / "run"
    process = launch(folder, *words(folder))
    run = RunFolder(folder)
    wait_for(lambda: MOMENTS[moment](run), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run.status().state == "interrupted"
    resume_until_done(folder)
    assert_same(folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_kills_one_after_another(seed, reference, tmp_path):
    draw = random.Random(seed)
    folder = tmp_path / "run"
    process = launch(folder, *words(folder))
    for _ in range(3):
        time.sleep(draw.uniform(0.0, 14.0))
        process.kill()
        process.wait()
        if not (folder / "config.json").exists():
            process = launch(folder, *words(folder))
            continue
        if RunFolder(folder).status().state == "succeeded":
            break
        process = launch(folder, "resume", str(folder))
    process.wait(timeout=300)
    if RunFolder(folder).status().state != "succeeded":
        resume_until_done(folder)
    assert_same(folder, reference)


def test_first_order_state_survives_a_kill(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = {"estimator": "rsm_first_order_flow"}
    assert trainers(*words(whole, **options)).returncode == 0
    process = launch(broken, *words(broken, **options))
    wait_for(lambda: len(RunFolder(broken).read_metrics()) >= 2, process)
    process.kill()
    process.wait()
    resume_until_done(broken)
    assert (broken / ADAPTER).read_bytes() == (whole / ADAPTER).read_bytes()


def test_a_stop_request_keeps_results_and_can_be_continued(reference, tmp_path):
    folder = tmp_path / "run"
    process = launch(folder, *words(folder))
    run = RunFolder(folder)
    wait_for(lambda: len(run.read_metrics()) >= 1, process)
    run.request_stop()
    assert process.wait(timeout=120) == 0
    assert run.status().state == "stopped"
    report = read(folder / "report.json")
    assert 1 <= report["updates"] <= UPDATES and (folder / ADAPTER).exists()
    resume_until_done(folder)
    assert_same(folder, reference)


def test_sigterm_is_a_stop_request(tmp_path):
    folder = tmp_path / "run"
    process = launch(folder, *words(folder))
    wait_for(lambda: len(RunFolder(folder).read_metrics()) >= 1, process)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    assert RunFolder(folder).status().state == "stopped"
