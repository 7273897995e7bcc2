"""Rows trained on the exact mixture: the policy starts as the reference, and every row of the table runs."""

import json
import math

import pytest
import torch

from trainers.cli import main
from trainers.lab.estimate import Problem
from trainers.lab.judging import SAMPLES, judge, law_samples, path_kl, sliced_distance
from trainers.lab.mixture import reference_mixture, reference_reward, reference_schedule
from trainers.lab.report import as_text
from trainers.lab.study import rows_of, run_study, study_influence
from trainers.lab.training import STEPS, lab_config, lab_trainer, train_row

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


def test_a_run_is_judged_by_its_own_beta_and_steps():
    config = lab_config("grpo", "flow", beta=4.0, group_size=16, rollout_steps=10)
    outcome = train_row(config, "flow", 1, beta=4.0)
    assert (config.kl_weight, config.reward_scale, outcome.beta) == (4.0, 0.25, 4.0)
    assert (outcome.updates, outcome.evaluations >= 16 * 10) == (1, True)
    reached = outcome.distance / outcome.share  # the reference's distance, a quarter of the tilt away
    trainer = lab_trainer(lab_config("grpo", "flow", rollout_steps=10), "flow")
    assert reached < 0.5 * judge("grpo", trainer, "flow", 0.0).distance


def test_beta_is_in_the_row_or_in_the_scale_of_the_gradient_but_not_in_both():
    assert lab_config("sqdf", "flow", beta=2.0).reward_scale == 1.0
    assert lab_config("vgg_flow", "flow", beta=2.0).reward_scale == 0.5


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
    problem = Problem(reference_mixture(), reference_reward(), reference_schedule("flow", 25))
    assert problem.tilted.log_weights.exp().sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--evaluations", "0"], "--evaluations"),
        (["--plot", "study.txt"], ".png"),
        (["--estimator", "sqdf", "--plot", "study.png"], "leave '--estimator' and"),
        (["--ablations", "--plot", "study.png"], "'--ablations' out"),
        (["--ablations", "--beta", "2"], "leave '--set' and '--beta' out"),
        (["--ablations", "--set", "group_size=16"], "leave '--set' and '--beta' out"),
        (["--estimator", "sqdf", "--beta", "0"], "'--beta' must be between"),
        (["--estimator", "sqdf", "--set", "rollout_steps=1"], "'rollout_steps' must be between"),
        (["--family", "flow", "--estimator", "pcpo"], "no place in the laboratory of flow"),
        (["--estimator", "custom"], "'custom' has no place"),
        (["--beta", "2"], "name them with '--estimator'"),
    ],
)
def test_wrong_input_is_refused_before_the_study(arguments, word, capsys):
    assert main(["lab", *arguments]) == 2
    assert word in capsys.readouterr().err


def test_the_study_can_be_drawn(tmp_path):
    picture = tmp_path / "study.png"
    assert main(["lab", "--family", "diffusion", "--evaluations", "1", "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_single_rows_train_with_other_settings(capsys, tmp_path):
    kept = tmp_path / "rows.jsonl"
    words = ["--estimator", "grpo, sqdf", "--family", "flow", "--evaluations", "1", "--beta", "3", "--json"]
    words += ["--out", str(kept)]
    assert main(["lab", *words, "--set", "group_size=16", "--set", "rollout_steps=10"]) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)
    assert [(row["method"], row["beta"]) for row in rows] == [("grpo", 3.0), ("sqdf", 3.0)]
    assert rows[0]["settings"] == {"group_size": 16, "rollout_steps": 10}
    assert "flow sqdf:" in told.err
    assert list(map(json.loads, kept.read_text(encoding="utf-8").splitlines())) == rows
