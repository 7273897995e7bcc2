"""Faults of the machine: full disks, damaged files, rewards that break. A sentence each, nothing lost."""

from __future__ import annotations

import json
import resource
import shutil

import pytest
import torch

from tests.e2e.shell import ROOT, lines, read, settings, trainers
from tests.faults.breaking_reward import BreaksLater
from tests.faults.watched_reward import registered
from trainers.checkpoint import load_latest
from trainers.errors import FaultError
from trainers.first_checks import TRIED
from trainers.opening import start
from trainers.presets import build_config
from trainers.run_folder import RunFolder
from trainers.session import Session

ADAPTER = "pytorch_lora_weights.safetensors"


def words(folder, *more, **changes):
    base = ["train", "--reward", "brightness", "--budget-seconds", "600", "--out", str(folder)]
    return [*base, *settings(**({"max_updates": 3} | changes)), *more]


def limit_file_size(size: int):
    """Return a function that makes the process's larger writes fail with a real error of the system."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_disk_that_fills_up_ends_the_run_with_a_sentence_and_keeps_what_was_written(tmp_path):
    folder = tmp_path / "run"
    result = trainers(*words(folder), preexec_fn=limit_file_size(100_000))
    assert result.returncode == 1
    assert "Could not write" in result.stderr and "Traceback" not in result.stderr
    status = read(folder / "status.json")
    assert status["state"] == "failed" and "Could not write" in status["error"]
    assert "Traceback" in (folder / "log.txt").read_text(encoding="utf-8")
    assert len(lines(folder / "samples" / "before.jsonl")) == 12
    resumed = trainers("resume", str(folder))
    assert resumed.returncode == 0, resumed.stderr
    assert read(folder / "report.json")["updates"] == 3


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    result = trainers("train", "--out", str(tmp_path / "file" / "run"))
    assert result.returncode == 2 and f"lies below the file {tmp_path / 'file'}" in result.stderr
    assert "Traceback" not in result.stderr


def test_damaged_checkpoints(tmp_path):
    folder = tmp_path / "run"
    assert trainers(*words(folder)).returncode == 0
    run = RunFolder(folder)
    newest, older = sorted(run.checkpoints.glob("*.safetensors"), reverse=True)
    content = bytearray(newest.read_bytes())
    content[-5] ^= 0xFF
    newest.write_bytes(content)
    assert load_latest(run).progress.updates == int(older.stem)
    older.write_bytes(older.read_bytes()[:1000])
    with pytest.raises(FaultError, match="Every checkpoint"):
        load_latest(run)
    state = read(run.status_file) | {"state": "failed"}
    run.status_file.write_text(json.dumps(state), encoding="utf-8")
    result = trainers("resume", str(folder))
    assert result.returncode == 1 and "Every checkpoint" in result.stderr
    assert "Traceback" not in result.stderr


def test_damaged_assets_are_named(tmp_path):
    assets = tmp_path / "assets"
    shutil.copytree(ROOT / "assets", assets)
    weights = next((assets / "tiny-flow" / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:5000])
    result = trainers(*words(tmp_path / "run"), env={"RSM_ASSETS": str(assets)})
    assert result.returncode == 1
    assert "tiny-flow" in result.stderr and "damaged" in result.stderr and "Traceback" not in result.stderr
    shutil.rmtree(assets / "tiny-flow")
    result = trainers(*words(tmp_path / "second"), env={"RSM_ASSETS": str(assets)})
    assert result.returncode == 1 and "missing" in result.stderr


def test_a_damaged_config_is_named(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text("{", encoding="utf-8")
    result = trainers("resume", str(folder))
    assert result.returncode == 1 and "damaged" in result.stderr and "Traceback" not in result.stderr


@pytest.fixture
def breaking():
    """Register the reward for one test."""
    BreaksLater.pictures = 0
    with registered("breaking", "tests.faults.breaking_reward:load"):
        yield BreaksLater


def test_a_reward_that_turns_nan_stops_the_run_and_keeps_the_last_good_adapter(breaking, tmp_path):
    # The budget counts from the start of the process, which here is the test run's.
    budget = {"budget_seconds": 86400}
    values = budget | dict(pair.removeprefix("--set=").split("=", 1) for pair in settings(max_updates=9))
    config = build_config("tiny-flow", "rsm_zeroth_order_flow", "breaking", values)
    baseline = config.eval_prompts * config.eval_samples_per_prompt
    breaking.after = TRIED + baseline + 3 * config.prompts_per_update * sum(config.branches)
    folder = start(tmp_path / "run", config)
    with pytest.raises(FaultError, match=r"At update 4: .*breaking.*nan"):
        Session(folder, config).run()
    status = folder.status()
    assert status.state == "failed" and "At update 4" in status.error
    assert (folder.adapter / ADAPTER).exists()
    assert len(folder.read_metrics()) == 3
    kept = load_latest(folder)
    assert kept.progress.updates == 3
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.lora.values())
