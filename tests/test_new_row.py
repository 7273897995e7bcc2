"""A method is one row: a row that no other file knows is listed, checked, trained, documented and raced."""

import dataclasses

import pytest

from tests.estimators.toy_model import Smooth
from tests.trainer_cases import BlackBox, follow, gain, timeless, toy
from trainers.cli import main
from trainers.comparison import races
from trainers.errors import InputError
from trainers.method_docs import methods_page
from trainers.methods import METHODS
from trainers.presets import build_config

ROW = dataclasses.replace(
    METHODS.get("tempflow_grpo"),
    name="throw_away",
    title="Throw-away",
    summary="TempFlow's branches with the matching loss, for this test alone.",
    objective="matching",
    origin="This test.",
    defaults={"noise_level": 0.9},
)


@pytest.fixture
def row(monkeypatch):
    monkeypatch.setattr(METHODS, "_specs", dict(METHODS._specs))
    return METHODS.register(ROW)


def test_a_new_row_is_listed_documented_and_raced(row, capsys):
    assert main(["list"]) == 0
    assert f"throw_away                   {row.summary}" in capsys.readouterr().out
    assert "## throw_away" in methods_page()
    assert "throw_away" in {race.estimator for race in races(["tiny-flow"], "tiny_clip", [], 1, 1.0, 1, 8)}


def test_a_new_row_gets_its_defaults_and_is_checked(row):
    assert build_config("tiny-flow", "throw_away", "shapes", {}).noise_level == 0.9
    with pytest.raises(InputError, match="Did you mean 'throw_away'"):
        build_config("tiny-flow", "throw_awa", "shapes", {})


def test_a_new_row_learns_by_itself_and_differs_from_its_model(row, one_thread):
    settings = {"prompts_per_update": 8, "branches": (8, 8), "learning_rate": 0.02, "clip_range": 0.1}
    trainer = toy("flow", "throw_away", reward=BlackBox(Smooth()), kl_weight=0.0, **settings)
    mean, error = gain(trainer, 10)
    assert mean > 5 * error
    ours, origin = (toy("flow", name, clip_range=1e-9) for name in ("throw_away", "tempflow_grpo"))
    assert timeless(follow(ours, 2)) != timeless(follow(origin, 2))


def test_the_table_is_as_it_was_after_the_test():
    assert "throw_away" not in METHODS
