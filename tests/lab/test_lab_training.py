"""Rows trained on the exact mixture: the policy starts as the reference, and every row of the table runs."""

import json
import math

import pytest
import torch

from trainers.cli import main
from trainers.lab.estimate import Problem
from trainers.lab.mixture import reference_mixture, reference_reward
from trainers.lab.report import as_text
from trainers.lab.study import rows_of, run_study, schedule_of, study_influence
from trainers.lab.training import (
    SAMPLES,
    STEPS,
    judge,
    lab_config,
    lab_trainer,
    law_samples,
    path_kl,
    sliced_distance,
)

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = ("flow", "diffusion")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_policy_starts_as_the_reference(family):
    trainer = lab_trainer(lab_config("reinforce_kl", family), family)
    outcome = judge("reinforce_kl", trainer, family, 0.0)
    assert outcome.share == pytest.approx(1.0, abs=1e-4)
    assert outcome.kl == 0.0
    assert outcome.floor < 0.15
    assert outcome.reward == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(("family", "method"), [(f, name) for f in FAMILIES for name in rows_of(f)])
def test_every_row_trains_on_the_mixture(family, method):
    trainer = lab_trainer(lab_config(method, family, group_size=16, roots_per_prompt=16), family)
    for _ in range(2):
        trainer.advance()
    outcome = judge(method, trainer, family, 0.0)
    assert math.isfinite(outcome.share)
    assert outcome.kl > 0.0
    assert outcome.updates == 2
    assert outcome.evaluations > 0


def test_the_base_of_the_policy_never_moves():
    trainer = lab_trainer(lab_config("grpo", "flow", group_size=16), "flow")
    before = path_kl(trainer, 64)
    trainer.advance()
    assert (before, path_kl(trainer, 64) > 0) == (0.0, True)
    assert not any(parameter.requires_grad for parameter in trainer.policy._base.parameters())


def test_the_sliced_distance_of_a_shift_is_its_mean_projection():
    points = torch.randn((SAMPLES, 2), generator=torch.Generator().manual_seed(0))
    assert sliced_distance(points, points) == 0.0
    shifted = points + torch.tensor([1.0, 0.0])
    assert sliced_distance(points, shifted) == pytest.approx(2 / math.pi, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_perfect_tilted_model_is_the_floor(family):
    tilted = reference_mixture().tilted(reference_reward(), 1.0)
    target = tilted.sample(SAMPLES, torch.Generator().manual_seed(1)).float()
    near = sliced_distance(law_samples(family, tilted, STEPS[family]), target)
    far = sliced_distance(law_samples(family, reference_mixture(), STEPS[family]), target)
    assert near < 0.15 * far


@pytest.mark.parametrize("family", FAMILIES)
def test_influences_are_shares_of_the_schedule(family):
    rows = study_influence(family)
    assert [row["method"] for row in rows] == rows_of(family)
    for row in rows:
        assert sum(row["influence"]) == pytest.approx(1.0)
        assert min(row["influence"]) >= 0.0
        assert len(row["influence"]) == len(row["noise"]) == STEPS[family]


def test_first_order_redesigns_suppress_noise_and_zeroth_order_ones_the_clean_end():
    by_name = {row["method"]: row["influence"] for row in study_influence("flow")}
    half = STEPS["flow"] // 2
    assert sum(by_name["rsm_first_order_flow"][half:]) > 0.7
    assert sum(by_name["vgg_flow"][half:]) > 0.8
    assert sum(by_name["rsm_zeroth_order_flow"][:half]) > 0.7


def test_a_small_study_holds_all_three_parts():
    study = run_study(("flow",), evaluations=1)
    assert json.loads(json.dumps(study)) == study
    assert {row["method"] for row in study["training"]} == set(rows_of("flow"))
    text = as_text(study)
    assert all(name in text for name in rows_of("flow"))
    problem = Problem(reference_mixture(), reference_reward(), schedule_of("flow", 25))
    assert problem.tilted.log_weights.exp().sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--evaluations", "0"], "--evaluations"), (["--plot", "study.txt"], ".png")],
)
def test_wrong_input_is_refused_before_the_study(arguments, word, capsys):
    assert main(["lab", *arguments]) == 2
    assert word in capsys.readouterr().err


def test_the_study_can_be_drawn(tmp_path):
    picture = tmp_path / "study.png"
    assert main(["lab", "--family", "diffusion", "--evaluations", "1", "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
