"""The README's commands are real: they exist in the Makefile, and the engine's parse."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def shell_lines(text: str = README) -> list[str]:
    """Every command in fenced sh blocks, continuation lines joined, comments dropped."""
    blocks = re.findall(r"^```(?:sh|bash|shell)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def rehearsed(line: str, out: Path) -> list[str]:
    """Turn a command of the README into one that checks its arguments and starts nothing."""
    words = shlex.split(line, comments=True)
    module, arguments = words[2], words[3:]
    begun = "--from-adapter" in arguments  # needs a run that is there
    if module == "trainers" and arguments[:1] == ["train"] and not begun:
        if "--out" in arguments:
            arguments[arguments.index("--out") + 1] = str(out)
        arguments = [word for word in arguments if word != "--dry-run"] + ["--dry-run"]
    elif module != "trainers" or arguments[:1] != ["list"]:
        arguments = [*arguments[:1], "--help"]
    return [sys.executable, "-m", module, *arguments]


MODULES = ("python -m trainers", "python -m rsm_app.hub")
ENGINE = [line for line in shell_lines() if line.startswith(MODULES)]


def test_every_make_command_is_a_target(repository):
    targets = set(re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    named = [shlex.split(line, comments=True)[1] for line in shell_lines() if line.startswith("make ")]
    assert named == ["demo", "test"] and set(named) <= targets


def test_every_other_command_is_one_of_the_engine():
    known = ("make ", *MODULES, "docker ", "hf ")  # those of docker and hf: tests/test_deployment.py
    assert all(line.startswith(known) for line in shell_lines())
    assert ENGINE


@pytest.mark.parametrize("line", ENGINE)
def test_engine_commands_parse(line, repository, tmp_path):
    done = subprocess.run(
        rehearsed(line, tmp_path / "run"), cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_paths_named_in_the_tables_exist(repository):
    named = re.findall(r"`((?:trainers|tests|docs|assets)/[\w./-]+)`", README)
    assert named and [path for path in named if not (repository / path).exists()] == []


def test_python_blocks_are_valid():
    for block in re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE):
        compile(block, "README.md", "exec")


def test_a_command_is_rehearsed_without_starting_it(tmp_path):
    line = "python -m trainers train --model m --out runs/x  # a comment"
    assert rehearsed(line, tmp_path)[3:] == ["train", "--model", "m", "--out", str(tmp_path), "--dry-run"]
    assert rehearsed("python -m trainers resume runs/x", tmp_path)[2:] == ["trainers", "resume", "--help"]
    assert rehearsed("python -m trainers list --json", tmp_path)[3:] == ["list", "--json"]
