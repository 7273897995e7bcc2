"""A function in a file as a reward: read without running it, checked when it runs, refused where others
start runs.
"""

import subprocess
import sys

import pytest
import torch

from trainers.cli import main
from trainers.errors import FaultError, InputError
from trainers.presets import build_config
from trainers.rewards import REWARDS, load_reward, parse_mixture
from trainers.rewards.own import resolved

CODE = """
import torch
print("imported")

def redness(images, prompts):
    return images[:, 0].mean((1, 2))

def black_box(images, prompts):
    return [float(len(prompt)) for prompt in prompts]

def too_few(images, prompts):
    return [1.0]

def raises(images, prompts):
    raise RuntimeError("out of ideas")

def detached(images, prompts):
    return images.detach().mean((1, 2, 3))

redness.differentiable = True
detached.differentiable = True
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def images():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_it_is_scored_mixed_and_differentiated(file):
    mixture = load_reward(f"{file}:redness:2,brightness:-1")
    leaf = images().requires_grad_()
    values = mixture(leaf, ["", "", ""])
    parts = mixture.components(images(), ["", "", ""])
    torch.testing.assert_close(values.detach(), 2 * images()[:, 0].mean((1, 2)) - parts["brightness"])
    values.sum().backward()
    assert leaf.grad[:, 0].min() > 0 and mixture.differentiable


def test_a_function_that_says_nothing_is_a_black_box(file):
    mixture = load_reward(f"{file}:black_box")
    values = mixture(images().requires_grad_(), ["a", "bb", "ccc"])
    assert not mixture.differentiable and values.tolist() == [1.0, 2.0, 3.0]


def test_naming_it_runs_nothing(file):
    name = f"{file}:redness"
    code = f"from trainers.rewards import *; parse_mixture('{name}:0.5'); print(REWARDS.get('{name}').title)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "redness of mine.py\n"
    assert parse_mixture(f"{file}:redness:0.5,shapes") == ((f"{file}:redness", 0.5), ("shapes", 1.0))
    assert REWARDS.get(f"{file}:redness").differentiable and f"{file}:redness" not in REWARDS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("mine.py:nothing", "no function 'nothing' .*it has redness, black_box"),
        ("absent.py:redness", "does not exist"),
        ("mine.py:redness:0", "must be a number of size"),
        ("broken.py:f", "not valid Python"),
    ],
)
def test_mistakes_are_told_in_sentences(file, change, words):
    (file.parent / "broken.py").write_text("def f(:\n")
    with pytest.raises(InputError, match=words):
        parse_mixture(f"{file.parent}/{change}")


NO_PATHS = ("~nosuchuser/x.py:f", "\0.py:f", "loop/x.py:f", f"{'x' * 5000}.py:f", "\ud800.py:f")


@pytest.mark.parametrize("name", NO_PATHS)
def test_a_text_that_is_no_path_is_told_in_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for mixture in (name, f"brightness:1, {name}:0.5"):
        with pytest.raises(InputError, match="cannot be (found|read)|does not exist|not valid Python"):
            build_config("tiny-flow", "grpo", mixture, {})
    assert not REWARDS.get(name).differentiable


def test_a_file_nested_too_deeply_for_python_is_told(tmp_path):
    (tmp_path / "deep.py").write_text("(" * 5000 + ")" * 5000)
    with pytest.raises(InputError, match="not valid Python"):
        parse_mixture(f"{tmp_path}/deep.py:f")
    (tmp_path / "deep.py").write_text(f"x = {'-' * 100_000}1\n")
    with pytest.raises(InputError, match="not valid Python"):
        parse_mixture(f"{tmp_path}/deep.py:f")


@pytest.mark.parametrize("name", ["own/mine.py:redness", *NO_PATHS])
def test_where_it_is_refused_no_file_is_looked_at(name, tmp_path, monkeypatch):
    """No link is followed, no home is looked up, and the file is not read for what it says of itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "mine.py").write_text(CODE)
    (tmp_path / "own").symlink_to("real")
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", "0")
    with pytest.raises(InputError, match="This app takes") as told:
        build_config("tiny-flow", "grpo", name, {})
    assert str(tmp_path) not in str(told.value)
    assert resolved(name) == name
    row = REWARDS.get(name)
    assert not row.differentiable and str(row.file) == name.removesuffix(f":{row.function}")


@pytest.mark.parametrize(
    ("name", "words"),
    [("too_few", "shape \\(1,\\) for 3 pictures"), ("raises", "RuntimeError: out of ideas")],
)
def test_what_goes_wrong_in_it_is_one_sentence_with_its_name(file, name, words):
    with pytest.raises(FaultError, match=f"mine.py:{name}' failed. .*{words}"):
        load_reward(f"{file}:{name}")(images(), ["", "", ""])


def test_values_without_the_gradient_that_was_declared_are_refused(file):
    mixture = load_reward(f"{file}:detached,brightness")
    assert mixture(images(), ["", "", ""]).shape == (3,)  # nobody asks for a gradient here
    with torch.no_grad():
        assert mixture(images().requires_grad_(), ["", "", ""]).shape == (3,)
    with pytest.raises(FaultError, match="mine.py:detached' failed. .*declared differentiable"):
        mixture(images().requires_grad_(), ["", "", ""])


def test_a_file_that_cannot_be_imported_is_told(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import no_such_thing\ndef f(images, prompts):\n    return 0\n")
    with pytest.raises(InputError, match="Importing .* ModuleNotFoundError"):
        load_reward(f"{path}:f")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SYSTEM": "spaces", "RSM_ALLOW_OWN_CODE": "1"}, "A Space takes"),
        ({"RSM_ALLOW_OWN_CODE": "0"}, "This app takes"),
        ({"RSM_ALLOW_OWN_CODE": ""}, "This app takes"),
        ({"RSM_ALLOW_OWN_CODE": "maybe"}, "This app takes"),
    ],
)
def test_it_is_refused_where_others_start_runs(file, monkeypatch, variables, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=words):
        build_config("tiny-flow", "grpo", f"{file}:redness", {})
    with pytest.raises(InputError, match=words):
        build_config("tiny-flow", "grpo", "shapes", {"server_url": "http://127.0.0.1:1"})
    with pytest.raises(InputError, match=words):
        REWARDS.get(f"{file}:redness").load()("cpu")


@pytest.mark.parametrize("word", ["1", "true", "Yes", " on "])
def test_it_is_allowed_by_a_clear_yes(file, monkeypatch, word):
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", word)
    assert build_config("tiny-flow", "grpo", f"{file}:redness", {}).reward.endswith("redness")


def test_the_app_refuses_it_unless_its_owner_allows_it():
    code = "import rsm_app, os; print(os.environ['RSM_ALLOW_OWN_CODE'])"
    for given, expected in ((None, "0"), ("1", "1")):
        clean = {"PATH": "/usr/bin"} | ({"RSM_ALLOW_OWN_CODE": given} if given else {})
        done = subprocess.run(
            [sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected


def test_its_file_is_named_from_the_root(file, monkeypatch, capsys):
    monkeypatch.chdir(file.parent)
    assert resolved("shapes:1, mine.py:redness:2") == f"shapes:1,{file}:redness:2"
    arguments = [
        "train",
        "--model",
        "tiny-flow",
        "--estimator",
        "grpo",
        "--reward",
        "mine.py:redness",
        "--dry-run",
    ]
    assert main(arguments) == 0
    assert f"{file}:redness" in capsys.readouterr().out
