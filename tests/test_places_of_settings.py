"""Files and folders in settings mean the same in every folder, and all rewards are checked before a run."""

import shutil

import pytest

from trainers.assets import asset_root
from trainers.errors import InputError
from trainers.presets import build_config

CODE = "def f(images, prompts):\n    return [0.0 for _ in prompts]\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYSTEM", raising=False)
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", "1")
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "mine.txt").write_text("a red circle\n")
    shutil.copytree(asset_root() / "tiny-flow", tmp_path / "model")
    return tmp_path


def test_relative_places_are_named_from_the_root(here):
    values = {"prompts": "mine.txt", "heldout_prompts": "./mine.txt", "others": "shapes,mine.py:f"}
    config = build_config("./model", "grpo", "mine.py:f:2", values)
    assert config.model == str(here / "model")
    assert config.prompts == config.heldout_prompts == str(here / "mine.txt")
    assert config.reward == f"{here}/mine.py:f:2" and config.others == f"shapes,{here}/mine.py:f"


def test_names_of_the_tables_stay_names(here):
    (here / "shapes-train").write_text("in the way\n")
    config = build_config("tiny-flow", "grpo", "shapes", {"prompts": "shapes-train"})
    assert (config.model, config.prompts, config.others) == ("tiny-flow", "shapes-train", "")


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ("nope", "Unknown reward 'nope'"),
        ("shapes,shapes", "'shapes' is given twice"),
        ("gone.py:f", "gone.py.* does not exist"),
        ("mine.py:g", "no function 'g'"),
        ("shapes,,brightness", "has an empty part"),
    ],
)
def test_rewards_that_are_only_reported_are_checked_too(here, others, words):
    with pytest.raises(InputError, match=words):
        build_config("tiny-flow", "grpo", "shapes", {"others": others})
