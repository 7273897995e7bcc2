"""Wrong input: one clear sentence each, all together, exit code 2, and no traceback."""

from __future__ import annotations

import json
import os

import pytest

from tests.e2e.shell import trainers
from trainers.cli import main
from trainers.models import MODELS

DRY = ("train", "--dry-run")
CASES = {
    "unknown reward": (["--reward", "shpaes"], ["Did you mean 'shapes'", "jpeg_incompressibility"]),
    "unknown model": (["--model", "tiny-flaw"], ["Did you mean 'tiny-flow'", "tiny-diffusion"]),
    "unknown estimator": (["--estimator", "gpro"], ["Did you mean 'grpo'", "rsm_first_order_flow"]),
    "unknown setting": (["--set", "lora_ranks=4"], ["Did you mean 'lora_rank'"]),
    "not key=value": (["--set", "lora_rank"], ["key=value"]),
    "not a number": (["--set", "learning_rate=fast"], ["'learning_rate' must be a number"]),
    "not finite": (["--set", "learning_rate=nan"], ["'learning_rate' must be between"]),
    "out of range": (["--set", "lora_rank=0"], ["'lora_rank' must be between 1 and 1024"]),
    "lonely branch": (["--set", "branches=1,4"], ["needs at least 2 branches"]),
    "too many branch steps": (["--set", "rollout_steps=2", "--set", "branches=2,2,2"], ["a rollout has 2"]),
    "no budget": (["--budget-seconds", "0"], ["'budget_seconds' must be between"]),
    "negative seed": (["--seed", "-1"], ["'seed' must be between"]),
    "first order on a black box": (
        ["--estimator", "rsm_first_order_flow", "--reward", "shapes"],
        ["black box", "Methods that fit: rsm_zeroth_order_flow, grpo"],
    ),
    "flow method on diffusion": (
        ["--model", "tiny-diffusion", "--estimator", "rsm_zeroth_order_flow"],
        ["defined for flow models", "rsm_zeroth_order_diffusion"],
    ),
    "bad mixture weight": (["--reward", "shapes:zero"], ["weight 'zero'"]),
    "missing prompt file": (["--prompts", "nowhere.txt"], ["neither a built-in prompt set nor a file"]),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_settings_are_refused_in_a_sentence(name):
    words, expected = CASES[name]
    result = trainers(*DRY, *words)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    for text in expected:
        assert text in result.stderr


def test_all_problems_are_reported_together():
    words = ["--model", "nope", "--reward", "none", "--set", "lora_rank=0", "--set", "xyz=1", "--seed", "-3"]
    result = trainers(*DRY, *words, "--prompts", "gone.txt")
    assert result.returncode == 2
    for text in ("'nope'", "'none'", "'lora_rank'", "'xyz'", "'seed'", "'gone.txt'"):
        assert text in result.stderr


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds no prompts"),
        (b"# only a remark\n\n", "holds no prompts"),
        (b"a caf\xe9 by the sea", "not UTF-8"),
        (b"\xff\xfea\x00\x00\x00b\x00", "no text"),
        (b"a red circle\n" + b"word " * 400, "characters"),
    ],
)
def test_prompt_files_are_checked(tmp_path, content, expected):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    result = trainers(*DRY, "--prompts", str(path))
    assert result.returncode == 2 and expected in result.stderr


def test_prompts_that_the_model_or_reward_cannot_read_are_refused(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a purple elephant\n", encoding="utf-8")
    assert trainers(*DRY, "--prompts", str(path)).returncode == 2
    result = trainers("train", "--prompts", str(path), "--out", str(tmp_path / "run"))
    assert result.returncode == 2 and "elephant" in result.stderr and "Traceback" not in result.stderr
    path.write_text("a red circle " * 20, encoding="utf-8")
    words = ["train", "--reward", "brightness", "--prompts", str(path), "--out", str(tmp_path / "other")]
    result = trainers(*words)
    assert result.returncode == 2 and "tokens" in result.stderr


def test_out_must_be_free(tmp_path, capsys):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    result = trainers("train", "--out", str(tmp_path / "file"))
    assert result.returncode == 2 and "is a file" in result.stderr
    assert trainers("train").returncode == 2
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}", encoding="utf-8")
    places = {"file": "is a file", "file/below/it": f"lies below the file {tmp_path / 'file'}"}
    for place, told in (places | {"run": "already holds a run"}).items():
        assert main([*DRY, "--out", str(tmp_path / place)]) == 2
        assert told in capsys.readouterr().err
    assert main([*DRY, "--out", str(tmp_path / "new" / "run")]) == 0 and not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_told_without_a_run_to_resume(tmp_path, capsys):
    """Where the system refuses, whoever asks: there is no run yet, so there is nothing to resume."""
    assert main(["train", "--out", "/proc/no-such/run"]) in (1, 2)
    told = capsys.readouterr().err
    assert "choose another" in told and "resume" not in told and "Free some space" not in told


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_closed_folder_is_told_before_anything_loads(tmp_path, capsys):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for words in (DRY, ("train",)):
        assert main([*words, "--out", str(closed / "run")]) == 2
        assert f"may not write in {closed}" in capsys.readouterr().err


def test_resume_and_evaluate_need_a_run(tmp_path):
    for verb in ("resume", "evaluate"):
        result = trainers(verb, str(tmp_path / "nothing"))
        assert result.returncode == 2 and "holds no run" in result.stderr


def test_list_shows_every_table():
    result = trainers("list", "--json")
    tables = json.loads(result.stdout)
    assert {"models", "rewards", "estimators"} == set(tables)
    assert set(MODELS.names()) == {row["name"] for row in tables["models"]}
    names = {row["name"] for row in tables["estimators"]}
    assert {"grpo", "rsm_zeroth_order_flow", "rsm_first_order_diffusion"} <= names
    (score,) = (row for row in tables["rewards"] if row["name"] == "clip_score")
    assert score["weights"][0]["repo"] == "openai/clip-vit-large-patch14"
    plain = trainers("list").stdout
    assert all(name in plain for name in names)


def test_a_dry_run_prints_the_settings_and_writes_nothing(tmp_path):
    out = tmp_path / "run"
    result = trainers(*DRY, "--set", "lora_rank=4", "--out", str(out))
    assert result.returncode == 0 and json.loads(result.stdout)["lora_rank"] == 4
    assert not out.exists()
