"""What a run is said to take, held against what the engine does; and the check of a reward's spread."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from tests.e2e.shell import trainers as engine
from tests.estimators.toy_model import Constant
from tests.trainer_cases import toy
from trainers.cautions import cautions
from trainers.config import RunConfig
from trainers.methods import METHODS, fitting_methods
from trainers.models import EMBEDDED, MODELS
from trainers.models.base import load_model
from trainers.models.configured import usual_steps
from trainers.models.readable import cut_off, tokens_of
from trainers.preflight import (
    EVALUATION_MARGIN,
    MOST_TOLD,
    RESERVE_SECONDS,
    Finished,
    Speed,
    estimate,
    group_size,
    groups_per_rollout,
    measured,
    pictures_per_rollout,
    prompt_problems,
    reference,
    work,
)
from trainers.presets import build_config, default_config
from trainers.prompt_files import PromptRow
from trainers.speeds import SPEEDS
from trainers.spread import summarise

SPEED = Speed(8.0, 0.02, 4.0, 1.0, 900.0, "")


def config(estimator="rsm_zeroth_order_flow", model="tiny-flow", reward="tiny_clip", **values) -> RunConfig:
    return build_config(model, estimator, reward, values)


def at_default_work(settings: RunConfig) -> Speed:
    return dataclasses.replace(SPEED, work=work(settings))


EVERY = [(name, row) for name in EMBEDDED for row in fitting_methods(MODELS.get(name).family, True)]
GROUPED = [pair for pair in EVERY if METHODS.get(pair[1]).order == "zeroth"]


@pytest.mark.parametrize(("model", "estimator"), EVERY)
def test_groups_and_pictures_are_those_of_a_rollout(model, estimator):
    """The engine's own rollout of every row finishes as many pictures, and no more groups can be silent."""
    trainer = toy(MODELS.get(model).family, estimator, roots_per_prompt=2)
    rollout, _ = trainer._rollout()
    assert rollout.images_sampled == pictures_per_rollout(trainer.config)
    groups, size = groups_per_rollout(trainer.config), group_size(trainer.config)
    if METHODS.get(estimator).order == "first":
        assert (groups, size) == (0, 0)
    else:
        assert groups * size == rollout.images_sampled


@pytest.mark.parametrize(("model", "estimator"), GROUPED)
def test_silent_groups_are_counted_in_the_same_groups(model, estimator):
    trainer = toy(MODELS.get(model).family, estimator, reward=Constant())
    rollout, _ = trainer._rollout()
    assert rollout.zero_spread_groups == groups_per_rollout(trainer.config)


@pytest.mark.parametrize("updates", [1, 2, 4])
def test_an_estimate_fills_the_budget_as_the_session_does(updates):
    settings = config(budget_seconds=118.0, probe_every=0, updates_per_rollout=updates)
    found = estimate(settings, at_default_work(settings))
    side = settings.eval_prompts * settings.eval_samples_per_prompt * SPEED.picture_seconds
    room = 118.0 - SPEED.start_seconds - side - (EVALUATION_MARGIN * side + RESERVE_SECONDS)
    rollouts = int(room / 4.0)
    assert found.updates == rollouts * settings.updates_per_rollout and found.fits
    assert found.total_seconds == pytest.approx(8.0 + 2 * side + 4.0 * rollouts)
    assert found.total_seconds <= 118.0
    assert found.training_pictures == rollouts * pictures_per_rollout(settings)


def test_a_longer_budget_means_more_updates_and_a_limit_ends_them():
    updates = []
    for seconds in (90.0, 300.0, 900.0):
        settings = config(budget_seconds=seconds)
        updates.append(estimate(settings, at_default_work(settings)).updates)
    assert updates == sorted(set(updates))
    limited = config(budget_seconds=900.0, max_updates=7, updates_per_rollout=2)
    assert estimate(limited, at_default_work(limited)).updates == 8


def test_a_budget_without_room_is_said_to_have_none():
    settings = config(budget_seconds=20.0)
    found = estimate(settings, at_default_work(settings))
    assert not found.fits and found.updates == settings.updates_per_rollout


def test_twice_the_pictures_take_twice_as_long():
    small, large = config("grpo", group_size=8), config("grpo", group_size=16)
    speed = at_default_work(small)
    one = estimate(dataclasses.replace(small, max_updates=3, budget_seconds=9e4, probe_every=0), speed)
    two = estimate(dataclasses.replace(large, max_updates=3, budget_seconds=9e4, probe_every=0), speed)
    assert two.training_seconds == pytest.approx(2 * one.training_seconds)


def run(settings: RunConfig, wall=100.0, train=60.0, baseline=16.0, seconds=4.0) -> Finished:
    update = 0.25 * seconds / settings.updates_per_rollout
    lines = [
        {"rollout_seconds": 0.75 * seconds, "update_seconds": update, "peak_memory_mb": 800.0 + i}
        for i in range(15)
    ]
    return Finished(
        settings, {"wall_seconds": wall, "train_seconds": train}, lines, [{"cost": 1.0}], baseline
    )


def test_earlier_runs_are_what_an_estimate_rests_on():
    settings = config()
    speed = measured([run(settings)])
    assert speed.update_seconds == pytest.approx(4.0) and speed.memory_mb == 814.0
    assert speed.start_seconds == pytest.approx(100.0 - 60.0 - 1.0 - 32.0)
    assert speed.picture_seconds == pytest.approx(16.0 / (160 * 4))
    assert "an earlier run" in speed.source
    assert "3 earlier runs" in measured([run(settings)] * 3).source


def test_an_earlier_run_with_other_settings_is_scaled_to_its_work():
    large = config(prompts_per_update=48)
    speed = measured([run(config(), seconds=4.0)])
    assert speed.update_seconds * work(large) / speed.work == pytest.approx(8.0)


def test_the_comparison_is_as_large_as_the_held_out_set_and_as_long_as_its_steps(tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("a red circle\na blue square\n")
    usual, small = config(), config(heldout_prompts=str(few))
    whole, part = (estimate(settings, reference(settings)) for settings in (usual, small))
    assert part.comparison_pictures == 2 * 2 * small.eval_samples_per_prompt
    assert part.comparison_seconds == pytest.approx(whole.comparison_seconds * 2 / usual.eval_prompts)
    steps = usual_steps(MODELS.get("tiny-flow"))
    for eval_steps, share in ((0, 1.0), (steps, 1.0), (2 * steps, 2.0), (1, 1 / steps)):
        found = estimate(config(eval_steps=eval_steps), reference(usual))
        assert found.comparison_seconds == pytest.approx(share * whole.comparison_seconds)
    done = run(config(heldout_prompts=str(few), eval_steps=2 * steps))
    done = dataclasses.replace(done, report={**done.report, "prompts": 2})
    assert measured([done]).picture_seconds == pytest.approx(16.0 / (2 * 4) / 2)
    told = cautions(config(heldout_prompts=str(few), budget_seconds=10))["budget"]
    assert "too short for one update" in told and "comparison" not in told, "which is not the cause"


@pytest.mark.parametrize("report", [{}, {"wall_seconds": "x"}, {"wall_seconds": 3.0}])
def test_a_damaged_run_tells_nothing(report):
    assert measured([dataclasses.replace(run(config()), report=report)]) is None
    assert measured([dataclasses.replace(run(config()), metrics=[])]) is None
    assert measured([dataclasses.replace(run(config()), baseline_seconds=None)]) is None


@pytest.mark.parametrize(("model", "estimator"), EVERY)
def test_every_row_has_a_reference_and_says_that_it_is_one(model, estimator):
    settings = default_config(model, estimator, "tiny_clip")
    found = estimate(settings, reference(settings))
    assert "No run with these choices has finished here yet" in found.source
    assert found.updates >= 1 and found.total_seconds > 0


def test_a_model_that_was_never_measured_has_no_reference():
    assert reference(dataclasses.replace(config(), model="another")) is None


@pytest.mark.parametrize("model", SPEEDS)
def test_looks_take_at_most_three_percent_of_the_newcomer_s_budget(model):
    for estimator in fitting_methods(MODELS.get(model).family, True):
        settings = default_config(model, estimator, "tiny_clip")
        if METHODS.get(estimator).name == "custom":
            continue
        speed = reference(settings)
        found = estimate(settings, speed)
        assert found.probe_pictures * speed.picture_seconds <= 0.03 * settings.budget_seconds, estimator


# -- prompts -----------------------------------------------------------------------------------------


def rows(*prompts):
    return [PromptRow(prompt, number) for number, prompt in enumerate(prompts, 1)]


LONG = "a photograph of my grandmother in her garden on the hill, drawn in pencil and in ink"


def test_prompts_that_cannot_be_used_are_told_by_the_setting_that_names_them():
    cats = prompt_problems(config(reward="shapes"), rows("a red circle", "a photo of a cat"))
    assert "Cannot read 'a photo of a cat' as a shapes caption" in cats["prompts"][0]
    assert cats["heldout_prompts"] == [] and len(cats["prompts"]) == 1
    assert prompt_problems(config()) == {"prompts": [], "heldout_prompts": []}
    elsewhere = prompt_problems(config(reward="shapes", heldout_prompts="general-heldout", others="ocr"))
    assert elsewhere["prompts"] == [] and 1 < len(elsewhere["heldout_prompts"]) <= MOST_TOLD
    words = " ".join(elsewhere["heldout_prompts"])
    assert "more prompts are outside the grammar" in words and "no text in quotes" in words
    assert "held-out prompts have more than the 12 tokens" in words


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_an_embedded_model_would_cut_off_is_known_as_the_loaded_one_says_it(name):
    prompts = ["a red circle", LONG, "x" * 40, "ünï 🙂 " * 3, "A  RED   circle."]
    told = load_model(MODELS.get(name), "cpu").prompt_problems(prompts)
    assert len(told) == 3
    assert cut_off(name, prompts, tokens_of(MODELS.get(name), prompts)) == told
    (sentence,) = prompt_problems(RunConfig(model=name, reward="brightness"), rows(*prompts))["prompts"]
    assert "3 of the 5 training prompts" in sentence and "lines 2, 3, 4" in sentence


def test_prompts_are_checked_without_torch():
    code = (
        "import sys; from trainers.preflight import prompt_problems; from trainers.config import RunConfig; "
        "from trainers.prompt_files import PromptRow; "
        f"assert len(prompt_problems(RunConfig(), [PromptRow({LONG!r}, 1)])['prompts']) == 2; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- the spread of a reward --------------------------------------------------------------------------


def test_spread_tells_what_differs_within_prompts_from_what_differs_between_them():
    rewards = torch.tensor([[0.0, 1.0], [5.0, 5.0], [2.0, 4.0]])
    found = summarise(rewards, 1.0)
    assert found.mean == pytest.approx(17 / 6) and found.silent == 1
    assert found.spread == pytest.approx((0.5**0.5 + 0.0 + 2**0.5) / 3)
    assert found.between == pytest.approx(torch.tensor([0.5, 5.0, 3.0]).std().item())


def test_a_reward_without_differences_is_silent():
    assert summarise(torch.full((4, 3), 0.7), 1.0).silent == 4


def test_the_command_scores_base_samples_and_refuses_what_cannot_be_scored(tmp_path):
    done = engine("spread", "--reward", "brightness", "--json")
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.0 < found["mean"] < 1.0 and found["spread"] > 0.0 and found["silent"] == 0
    own = tmp_path / "prompts.txt"
    own.write_text("a photograph of my grandmother\n")
    refused = engine("spread", "--reward", "shapes", "--prompts", str(own))
    assert refused.returncode == 2 and "grandmother" in refused.stderr and "Traceback" not in refused.stderr
