"""A whole run through the command line: its folder, its numbers, and its pictures in plain diffusers."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.e2e.shell import ROOT, lines, read, settings, trainers

PLAIN_DIFFUSERS = """
import json, sys
from pathlib import Path
import torch
from diffusers import DiffusionPipeline
run, base = Path(sys.argv[1]), Path(sys.argv[2])
arguments = json.loads((base / "call.json").read_text())
pipe = DiffusionPipeline.from_pretrained(base, **arguments["load"])
pipe.load_lora_weights(run / "adapter")
for line in list(open(run / "samples" / "pairs.jsonl"))[:3]:
    pair = json.loads(line)
    generator = torch.Generator("cpu").manual_seed(pair["seed"])
    call = json.loads((run / "report.json").read_text())["sampling"]
    pipe(pair["prompt"], generator=generator, **call).images[0].save(sys.argv[3] + f"/{pair['index']}.png")
assert "trainers" not in sys.modules
"""

METRICS = [
    "step",
    "epoch",
    "seconds",
    "reward_mean",
    "reward_std",
    "zero_spread_groups",
    "loss",
    "grad_norm",
    "clip_fraction",
    "ratio_mean",
    "pull",
    "kl",
    "lr",
    "images_per_second",
    "peak_memory_mb",
]
REPORT = [
    "model",
    "reward",
    "estimator",
    "seed",
    "wall_seconds",
    "train_seconds",
    "updates",
    "images_sampled",
    "before",
    "after",
    "paired",
    "drift",
]
RUNS = [("tiny-flow", "rsm_zeroth_order_flow"), ("tiny-diffusion", "rsm_first_order_diffusion")]


@pytest.fixture(scope="module", params=RUNS, ids=[estimator for _, estimator in RUNS])
def run(request, tmp_path_factory):
    model, estimator = request.param
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "--model", model, "--estimator", estimator, "--reward", "brightness"]
    words += ["--budget-seconds", "600", "--out", str(folder)]
    branches = {} if "zeroth" in estimator else {"branches": 2}
    result = trainers(*words, *settings(max_updates=3, **branches))
    assert result.returncode == 0, result.stderr
    return folder, model, result


def test_the_folder_holds_what_the_documentation_says(run):
    folder, _, _ = run
    assert read(folder / "status.json")["state"] == "succeeded"
    report = read(folder / "report.json")
    assert set(REPORT) <= set(report)
    for side in ("before", "after"):
        assert set(report[side]) == {"reward", "others", "diversity"}
        assert set(report[side]["reward"]) == {"mean", "stderr"}
        assert len(report[side]["others"]) >= 1 and "brightness" not in report[side]["others"]
    assert set(report["paired"]) == {"n", "mean_gain", "stderr", "z", "win_rate"}
    assert report["updates"] == 3 and report["drift"] > 0


def test_metrics_have_one_finite_line_per_update(run):
    folder, _, _ = run
    records = lines(folder / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3]
    for record in records:
        assert set(METRICS) <= set(record)
        assert all(math.isfinite(record[name]) for name in METRICS)
    assert records[0]["ratio_mean"] == 1.0 and records[0]["kl"] == 0.0


def test_pairs_name_pictures_and_their_rewards_can_be_recomputed(run):
    folder, _, _ = run
    pairs = lines(folder / "samples" / "pairs.jsonl")
    report = read(folder / "report.json")
    assert len(pairs) == report["paired"]["n"] == 12
    luma = np.array([0.2126, 0.7152, 0.0722])
    for pair in pairs:
        assert set(pair) == {"index", "prompt", "seed", "reward_before", "reward_after", "before", "after"}
        for side in ("before", "after"):
            picture = np.asarray(Image.open(folder / pair[side]), dtype=np.float64) / 255
            assert abs((picture @ luma).mean() - pair[f"reward_{side}"]) < 1e-4
    gains = [pair["reward_after"] - pair["reward_before"] for pair in pairs]
    assert abs(np.mean(gains) - report["paired"]["mean_gain"]) < 1e-9


def test_plain_diffusers_draws_the_after_pictures(run, tmp_path):
    folder, model, _ = run
    words = [sys.executable, "-c", PLAIN_DIFFUSERS, str(folder), str(ROOT / "assets" / model), str(tmp_path)]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    for pair in lines(folder / "samples" / "pairs.jsonl")[:3]:
        mine = np.asarray(Image.open(folder / pair["after"]), dtype=np.float64)
        plain = np.asarray(Image.open(tmp_path / f"{pair['index']}.png"), dtype=np.float64)
        error = ((mine - plain) ** 2).mean()
        assert error == 0 or 10 * math.log10(255**2 / error) >= 40


def test_the_adapter_changes_pictures(run):
    folder, _, _ = run
    tensors = load_file(folder / "adapter" / "pytorch_lora_weights.safetensors")
    assert any(float(t.abs().max()) > 0 for name, t in tensors.items() if "lora_B" in name)
    pairs = lines(folder / "samples" / "pairs.jsonl")
    changed = [np.any(_pixels(folder / p["before"]) != _pixels(folder / p["after"])) for p in pairs]
    assert any(changed)


def test_the_progress_shows_phases(run):
    _, _, result = run
    for phase in ("load", "baseline", "train", "evaluate", "done"):
        assert f"{phase} · " in result.stderr
    assert "ETA" in result.stderr and "images/s" in result.stderr


def test_evaluate_repeats_the_report(run):
    folder, _, _ = run
    result = trainers("evaluate", str(folder))
    assert result.returncode == 0, result.stderr
    import json

    again, report = json.loads(result.stdout), read(folder / "report.json")
    assert abs(again["paired"]["mean_gain"] - report["paired"]["mean_gain"]) < 1e-6
    assert abs(again["after"]["reward"]["mean"] - report["after"]["reward"]["mean"]) < 1e-6


def test_a_finished_run_is_not_resumed_or_overwritten(run):
    folder, _, _ = run
    before = (folder / "report.json").read_bytes()
    again = trainers("train", "--out", str(folder))
    assert again.returncode == 2 and "already holds a run" in again.stderr
    resumed = trainers("resume", str(folder))
    assert resumed.returncode == 2 and "already finished" in resumed.stderr
    assert (folder / "report.json").read_bytes() == before


def _pixels(path):
    return np.asarray(Image.open(path))
