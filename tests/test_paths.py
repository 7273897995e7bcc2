"""Whatever a person types where a path is wanted ends in a sentence, not in a traceback."""

import json
import os

import pytest

from trainers.assets import asset_root
from trainers.cli import main
from trainers.errors import InputError
from trainers.paths import path_of
from trainers.rewards.judge import store_path
from trainers.rewards.weights import Weights

LONG = "./" + "x" * 300
UNUSABLE = {
    "long": (LONG, "name too long"),
    "nobody's": ("~nosuchuser-of-rsm/x", "home directory"),
    "null": ("a\0b", "null"),
}


@pytest.mark.parametrize(("text", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_text_that_names_no_path_is_told(text, words):
    with pytest.raises(InputError, match=f"(?i)is no path that can be used here: .*{words}.*\\.$") as caught:
        path_of(text)
    assert len(str(caught.value)) < 250


def test_a_path_need_not_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("")
    assert path_of("~/new") == tmp_path / "new"
    assert path_of(str(tmp_path / "file" / "below")) == tmp_path / "file" / "below"


@pytest.mark.parametrize("text", [LONG, "~nosuchuser-of-rsm/x"], ids=["long", "nobody's"])
@pytest.mark.parametrize(
    "words",
    [
        ("train", "--dry-run", "--prompts"),
        ("train", "--dry-run", "--set", "heldout_prompts="),
        ("train", "--dry-run", "--model"),
        ("train", "--dry-run", "--from-adapter"),
        ("train", "--dry-run", "--config"),
        ("train", "--out"),
        ("resume",),
        ("evaluate",),
    ],
    ids=" ".join,
)
def test_every_word_of_the_shell_that_is_a_path_is_checked(words, text, capsys):
    words = [*words[:-1], words[-1] + text] if words[-1].endswith("=") else [*words, text]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "is no path that can be used here" in told and told.count("\n") == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"prompts": 5},
        {"heldout_prompts": ["a"]},
        {"model": 5},
        {"model": ["tiny-flow"]},
        {"estimator": {"a": 1}},
        {"reward": 5},
        {"start_adapter": 5, "seed": 10**400},
    ],
    ids=str,
)
def test_a_file_of_settings_with_other_types_is_told(settings, tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings))
    words = ["train", "--config", str(path), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("Error: ")
    assert not os.path.exists(tmp_path / "run" / "config.json")


def test_folders_of_variables_may_begin_with_a_home_and_need_none(monkeypatch, tmp_path):
    """Shipped models, weights of rewards, and the judge's answers, as a service's settings write them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RSM_ASSETS", "RSM_WEIGHTS", "RSM_CACHE"):
        monkeypatch.setenv(name, f"~/{name}")
    assert asset_root() == tmp_path / "RSM_ASSETS"
    assert store_path() == tmp_path / "RSM_CACHE" / "rsm-studio" / "judge.sqlite"
    weights = Weights("someone/scorer", ("config.json",), "MIT", 1)
    (tmp_path / "RSM_WEIGHTS" / "someone" / "scorer").mkdir(parents=True)
    (tmp_path / "RSM_WEIGHTS" / "someone" / "scorer" / "config.json").write_text("{}")
    assert weights.here() == tmp_path / "RSM_WEIGHTS" / "someone" / "scorer"
    monkeypatch.setenv("RSM_ASSETS", "~nobody-of-this-name/x")
    with pytest.raises(InputError, match="The variable RSM_ASSETS cannot be used: '~nobody"):
        asset_root()
    for name in ("RSM_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: no_home())
    assert store_path() is None, "answers are then kept in memory"


def no_home():
    raise RuntimeError("Could not determine home directory.")
