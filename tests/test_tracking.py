"""Metrics in a tracker: what arrives in the real trackio is what the run folder holds."""

import json
import os
import subprocess
import sys

import pytest

from trainers import tracking
from trainers.cli import main
from trainers.errors import InputError
from trainers.run_folder import RunFolder, append_line, write_json

READ = """
import json, trackio
(run,) = trackio.Api().runs("study")
logs = trackio.SQLiteStorage.get_logs("study", run.name, run_id=run.id)
print(json.dumps({"name": run.name, "config": run.config, "logs": logs}))
"""


@pytest.fixture
def folder(tmp_path):
    """A run of two updates, as its worker writes it."""
    run = RunFolder(tmp_path / "first")
    write_json(run.config, {"model": "tiny-flow", "seed": 3, "prompts": "/home/user/own.txt"})
    append_line(run.probes, {"step": 0, "reward": [0.25, 0.75], "diversity": 0.5, "prompts": ["a", "b"]})
    append_line(run.metrics, {"step": 1, "reward_mean": 0.5, "lr": 1e-3})
    append_line(run.metrics, {"step": 2, "reward_mean": 0.625, "lr": 1e-3})
    write_json(run.report, {"updates": 2, "paired": {"mean_gain": 0.125, "z": 3.0, "win_rate": 0.75, "n": 8}})
    return run


def test_every_number_keeps_its_update(folder):
    assert tracking.history(folder) == {
        0: {"heldout/reward": 0.5, "heldout/diversity": 0.5},
        1: {"train/reward_mean": 0.5, "train/lr": 1e-3},
        2: {
            "train/reward_mean": 0.625,
            "train/lr": 1e-3,
            "paired/mean_gain": 0.125,
            "paired/z": 3.0,
            "paired/win_rate": 0.75,
        },
    }


def test_trackio_has_what_the_run_has_and_no_path_of_the_machine(folder, tmp_path):
    own = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    words = ["-m", "trainers", "export-metrics", str(folder.path), "--to", "trackio", "--project", "study"]
    done = python(words, own)
    assert done.stdout.splitlines()[-1] == "Copied 3 steps of first to the project study."
    found = json.loads(python(["-c", READ], own).stdout.splitlines()[-1])
    assert found["name"] == "first"
    assert found["config"]["seed"] == 3 and found["config"]["prompts"] == "own.txt"
    arrived = {line.pop("step"): line for line in found["logs"]}
    sent = tracking.history(folder)
    assert {step: {name: line[name] for name in sent[step]} for step, line in arrived.items()} == sent


def python(words, environment):
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_what_cannot_be_exported_is_a_sentence(folder, tmp_path, monkeypatch, capsys):
    assert main(["export-metrics", str(tmp_path / "none"), "--to", "trackio"]) == 2
    assert "holds no run" in capsys.readouterr().err
    with pytest.raises(InputError, match="trackio refuses"):
        tracking.export(folder, "trackio", "registry-study")
    folder.metrics.unlink()
    folder.probes.unlink()
    with pytest.raises(InputError, match="no metrics yet"):
        tracking.export(folder, "trackio")


def test_a_missing_tracker_is_a_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(InputError, match="pip install trackio"):
        tracking.export(folder, "trackio")
