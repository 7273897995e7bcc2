"""The house rules: arrows between folders, sizes of files, and what the repository may contain."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.import_graph import Tree, violations

MAX_LINES = 400
MAX_BINARY_BYTES = 40_000_000
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|tmp|Users|home/(?!user\b))/?\w+/")
REGISTRY_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs\.org|(?:deb|security)\.debian\.org"
)
OPTIONAL = {
    "pyarrow",
    "spaces",
    "trackio",
}  # imported where they are needed, with a sentence where they are missing
DISTRIBUTION = {"PIL": "pillow", "huggingface_hub": "huggingface_hub", "markdown_it": "markdown-it-py"}
DISTRIBUTION["yaml"] = "PyYAML"


def project_files(root: Path) -> list[Path]:
    """Files that git tracks or would track; in an unpacked archive, all but hidden ones."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, check=False)
    if listing.returncode == 0:
        names = listing.stdout.decode().split("\0")
        return [path for name in names if name and (path := root / name).is_file()]
    return [p for p in root.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.parts)]


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def hygiene(root: Path) -> list[str]:
    found, binary = [], 0
    for path in project_files(root):
        name, text = path.relative_to(root), text_of(path)
        if text is None:
            binary += path.stat().st_size
            continue
        found += [f"{name} names the path {hit[0]}" for hit in MACHINE_PATH.finditer(text)]
        found += [f"{name} names the host {hit[0]}" for hit in REGISTRY_HOST.finditer(text)]
        if path.suffix == ".py":
            lines = text.count("\n")
            found += [f"{name} has {lines} lines, more than {MAX_LINES}"] * (lines > MAX_LINES)
            found += [f"{name}: a helper lives under a real name"] * (
                path.stem in ("utils", "util", "helpers")
            )
    found += [f"binary files take {binary} bytes"] * (binary > MAX_BINARY_BYTES)
    return found


def plant(root: Path, files: dict[str, str]) -> Path:
    """Write modules, given by their path without the suffix."""
    for name, text in files.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_imports_follow_the_architecture(repository):
    assert violations(repository) == []


def test_repository_is_clean(repository):
    assert hygiene(repository) == []


def test_every_import_is_a_declared_dependency(repository):
    lines = (repository / "requirements.txt").read_text().splitlines()
    declared = {re.split(r"[\[<>=~!; ]", line)[0] for line in lines if line and line[0] != "#"}
    tree = Tree(repository)
    used = set().union(*map(tree.external, tree.paths)) - sys.stdlib_module_names
    assert {DISTRIBUTION.get(name, name) for name in used} - declared == OPTIONAL


def test_lock_pins_everything_exactly(repository):
    lines = (repository / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", pin) for pin in pins)
    locked = {re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins}
    for file in ("requirements.txt", "requirements-dev.txt"):
        direct = [line for line in (repository / file).read_text().splitlines() if line[:1].isalpha()]
        assert {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=]", line)[0]).lower() for line in direct} <= locked


EMPTY = ""
PLANTED = [
    ("trainers stands alone", {"trainers/loop": "import rsm_app.jobs", "rsm_app/jobs": EMPTY}),
    ("trainers stands alone", {"trainers/a": "def f():\n  from rsm_app import jobs", "rsm_app/jobs": EMPTY}),
    ("core knows only torch", {"trainers/core/loss": "import numpy"}),
    ("imports trainers.errors", {"trainers/core/loss": "from ..errors import X", "trainers/errors": EMPTY}),
    ("imports gradio", {"trainers/samplers/ode": "import gradio as gr"}),
    ("imports gradio", {"rsm_app/jobs": "import gradio.themes"}),
    ("Importing trainers.config imports torch", {"trainers/config": "import torch"}),
    ("in trainers.x", {"trainers/methods": "import trainers.x", "trainers/x": "import torch.nn"}),
    (  # a package's __init__ runs with each of its modules
        "Importing trainers.config imports torch, in trainers.rewards",
        {
            "trainers/config": "import trainers.rewards.a",
            "trainers/rewards/a": EMPTY,
            "trainers/rewards/__init__": "import torch",
        },
    ),
    ("up to rsm_app.ui", {"rsm_app/jobs": "from rsm_app.ui import train", "rsm_app/ui/train": EMPTY}),
    ("reaches up to app", {"rsm_app/ui": "import app", "app": EMPTY}),
    ("up to trainers.loop", {"trainers/rewards/a": "from trainers import loop", "trainers/loop": EMPTY}),
    ("reaches up", {"trainers/samplers/a": "import trainers.estimators.b", "trainers/estimators/b": EMPTY}),
    (  # through a module that has no layer of its own
        "trainers.models.a reaches up to trainers.loop",
        {
            "trainers/models/a": "import trainers.x",
            "trainers/x": "import trainers.loop",
            "trainers/loop": EMPTY,
        },
    ),
    ("in a circle", {"trainers/x": "import trainers.y", "trainers/y": "import trainers.x"}),
]


@pytest.mark.parametrize(("complaint", "files"), PLANTED)
def test_a_planted_back_edge_is_found(tmp_path, complaint, files):
    found = violations(plant(tmp_path, files))
    assert any(complaint in sentence for sentence in found), found


def test_the_right_direction_passes(tmp_path):
    files = {
        "app": "from rsm_app.ui import page\nimport gradio",
        "rsm_app/ui/page": "import gradio\nfrom rsm_app.jobs import store",
        "rsm_app/jobs/store": "from trainers import loop, config",
        "trainers/loop": "import torch\nfrom trainers.estimators import zeroth",
        "trainers/estimators/zeroth": "from trainers.core import loss\nfrom trainers.samplers import ode",
        "trainers/samplers/ode": "from ..core import loss",
        "trainers/core/loss": "import math\nimport torch",
        "trainers/config": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import torch",
        "trainers/methods": "def f():\n  import torch",
    }
    assert violations(plant(tmp_path, files)) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "see " + "/root" + "/thing/x"),
        ("a.py", "PATH = '" + "/home" + "/anna/models'"),
        ("a.txt", "https://" + "pypi" + ".org/simple"),
        ("a.py", "x = 1\n" * (MAX_LINES + 1)),
        ("utils.py", ""),
    ],
)
def test_planted_dirt_is_found(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert len(hygiene(tmp_path)) == 1


def test_a_space_s_home_and_web_addresses_are_no_machine_paths(tmp_path):
    (tmp_path / "Dockerfile").write_text("ENV HOME=/home/user/app\n# https://example.org/root/x/\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert hygiene(tmp_path) == []
