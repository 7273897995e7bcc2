"""Run the command line as a person would, in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from trainers.rewards.own import PERMISSION

ROOT = Path(__file__).resolve().parents[2]

QUICK = {
    "eval_prompts": 6,
    "eval_samples_per_prompt": 2,
    "rollout_steps": 4,
    "branches": "3,3",
    "prompts_per_update": 4,
    "roots_per_prompt": 1,
    "updates_per_rollout": 1,  # tests that count rollouts count updates
    "threads": 1,
    "dtype": "float32",
    "checkpoint_seconds": 0,
    "probe_every": 0,  # tests that count pictures count those of training and comparison
}


def command(*words: str) -> list[str]:
    """Return the argument list of ``python -m trainers …``."""
    return [sys.executable, "-m", "trainers", *words]


def settings(**changes) -> list[str]:
    """Return ``--set`` words of a quick run, with changes."""
    return [f"--set={name}={value}" for name, value in (QUICK | changes).items()]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a shell: the app, once imported by another test, forbids own code in its."""
    return {name: value for name, value in os.environ.items() if name != PERMISSION} | more


def trainers(*words: str, timeout: float = 300, **extra) -> subprocess.CompletedProcess:
    """Run ``python -m trainers …`` to its end, with captured text."""
    return subprocess.run(
        command(*words),
        cwd=ROOT,
        env=environment(**extra.pop("env", {})),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        **extra,
    )


def read(path: Path) -> dict:
    """Return a JSON file's object."""
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[dict]:
    """Return a JSON-lines file's objects."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
