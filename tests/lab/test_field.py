"""The laboratory's pictures: the exact field is exact, estimates do as theory says, choices are bounded."""

import math
from dataclasses import replace

import pytest
import torch

from trainers.errors import InputError
from trainers.influence import influence, trained_steps
from trainers.lab import choices, estimate, field, pulls
from trainers.lab.choices import Choice, branches_of, check_methods, methods_of, read_choice
from trainers.methods import METHODS

MIDDLE = {"flow": 0.6, "diffusion": 0.9}


def choice(family, **changes):
    exact = choices.EXACT_INJECTED[family]
    return replace(Choice(family=family, noise=MIDDLE[family], injected=exact, advantage="tilted"), **changes)


def slope(found):
    """How long the estimate is along the exact field, under the law to reach."""
    along = found.weights @ (found.estimate * found.truth).sum(1)
    return float(along / (found.weights @ found.truth.pow(2).sum(1)))


@pytest.mark.parametrize("family", choices.FAMILIES)
@pytest.mark.parametrize("beta", choices.BETAS)
def test_the_exact_field_is_the_gradient_of_the_log_ratio_of_the_densities(family, beta):
    asked = choice(family, beta=beta, order="first")
    found, problem = field.estimate_field(asked), field.problem_of(family, beta)
    reference, tilted = (law.to(torch.float64) for law in (problem.reference, problem.tilted))
    points = found.points.double().requires_grad_(True)
    ratio = (
        tilted.density(points, found.signal, found.noise).log()
        - reference.density(points, found.signal, found.noise).log()
    )
    (gradient,) = torch.autograd.grad(ratio.sum(), points)
    torch.testing.assert_close(found.truth.double(), gradient, rtol=1e-3, atol=1e-4)


def test_the_densities_are_those_of_the_noised_mixture():
    problem = field.problem_of("flow", 1.0)
    law, signal, noise = problem.tilted.to(torch.float64), 0.4, 0.6
    modes = torch.distributions.MultivariateNormal(
        signal * law.centres, (signal**2 + noise**2) * torch.eye(2, dtype=torch.float64)
    )
    mixed = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=law.log_weights), modes
    )
    points = 3 * torch.randn((50, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(law.density(points, signal, noise), mixed.log_prob(points).exp())


@pytest.mark.parametrize("family", choices.FAMILIES)
def test_contours_cover_nearly_all_mass_of_both_laws(family):
    found = field.estimate_field(choice(family, order="first"))
    cell = float((found.axes[0, 1] - found.axes[0, 0]) * (found.axes[1, 1] - found.axes[1, 0]))
    for density in (found.reference, found.tilted):
        assert 0.95 < float(density.sum()) * cell < 1.01


@pytest.mark.parametrize("family", choices.FAMILIES)
def test_exponential_weights_find_the_exact_field_when_the_noise_is_exact(family):
    few, many = (field.estimate_field(choice(family, samples=n)) for n in (16, 1024))
    assert many.rmse < 0.45 * few.rmse
    assert many.rmse < 0.3 * many.size
    assert slope(many) == pytest.approx(1.0, abs=0.25)  # 25 steps are coarse; with 100 it is 0.04


@pytest.mark.parametrize("family", choices.FAMILIES)
def test_less_injected_noise_makes_the_arrows_too_short(family):
    exact = choices.EXACT_INJECTED[family]
    lengths = [
        slope(field.estimate_field(choice(family, samples=1024, injected=share * exact)))
        for share in (0.4, 0.7, 1.0)
    ]
    assert lengths[0] < 0.45 < lengths[2] and lengths == sorted(lengths)


def test_advantages_scale_with_rewards_as_they_say():
    problem = field.problem_of("flow", 1.0)
    generator = torch.Generator().manual_seed(0)
    noise, rewards = estimate.rollouts(problem, 10, torch.zeros(1, 2), 256, False, 1.0, generator)

    def both(kind):
        return [estimate.zeroth_order(problem, 10, noise, scale * rewards, kind, 1.0) for scale in (1.0, 3.0)]

    small, large = both("mean")
    torch.testing.assert_close(large, 3 * small)
    small, large = both("group")
    torch.testing.assert_close(large, small, rtol=1e-3, atol=1e-4)
    small, large = both("tilted")
    assert not torch.allclose(large, 3 * small, rtol=0.02) and not torch.allclose(large, small, rtol=0.02)


@pytest.mark.parametrize("family", choices.FAMILIES)
def test_errors_are_made_of_bias_and_spread_and_agree_with_the_arrows(family):
    asked = choice(family, advantage="mean", samples=64)
    qualities = field.errors(asked)
    for quality in qualities:
        assert quality.rmse**2 == pytest.approx(quality.bias**2 + quality.std**2, rel=0.12), quality
    line = {q.samples: q for q in qualities if q.estimator == field.estimator_name(asked)}
    assert set(line) == set(choices.SAMPLES)
    assert line[1024].std == pytest.approx(line[16].std / math.sqrt(64), rel=0.35)
    assert field.estimate_field(asked).rmse == pytest.approx(line[64].rmse, rel=0.35)
    assert field.estimate_field(asked).evaluations == line[64].evaluations


@pytest.mark.parametrize("family", choices.FAMILIES)
@pytest.mark.parametrize("noise", choices.NOISE_RANGE)
@pytest.mark.parametrize("way", ["sde", "localised", "first"])
def test_every_corner_of_the_choices_can_be_drawn(family, noise, way):
    zeroth = way != "first"
    kinds = choices.ADVANTAGES if zeroth else ["mean"]
    depths = [1] if zeroth else choices.LOOKAHEADS
    for kind in kinds:
        for depth in depths:
            asked = choice(
                family, noise=noise, advantage=kind, samples=4, lookahead=depth,
                order="zeroth" if zeroth else "first", rollout=way if zeroth else "sde",
            )  # fmt: skip
            found = field.estimate_field(asked)
            assert torch.isfinite(found.estimate).all() and torch.isfinite(found.truth).all()
            assert found.estimate.shape == found.truth.shape == found.points.shape
            assert field.estimator_name(asked) in {q.estimator for q in field.errors(asked)}


def test_the_same_choice_gives_the_same_arrows_and_another_seed_others():
    first = field.estimate_field(choice("flow")).estimate
    field._drawn.cache_clear()
    assert torch.equal(first, field.estimate_field(choice("flow")).estimate)
    assert not torch.equal(first, field.estimate_field(choice("flow", seed=1)).estimate)


def test_no_choice_asks_for_more_than_about_a_second_of_work():
    for family in choices.FAMILIES:
        asked = choice(family, noise=max(choices.NOISE_RANGE), samples=max(choices.SAMPLES))
        points = len(field.estimate_field(asked).points)
        assert points * asked.samples * choices.STEPS < 3_500_000


def test_the_page_s_tables_are_the_laboratory_s():
    assert set(choices.ADVANTAGES) == set(estimate.ADVANTAGES)
    assert read_choice({}) == Choice()


def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(InputError) as refused:
        read_choice(
            {"family": "flo", "samples": 17, "noise": 2, "injected": "much", "beta": None, "seed": 1.5}
        )
    text = " ".join(refused.value.problems)
    assert len(refused.value.problems) == 6
    for sentence in (
        "Model family cannot be 'flo'. Did you mean 'flow'?",
        "Samples must be one of 4, 16, 64, 256, 1024, not 17.",
        "Noise level of the states must be between 0.05 and 0.98, not 2.",
        "Noise injected per step must be a number, not 'much'.",
        "β must be a number, not nothing.",
        "The seed must be a whole number, not 1.5.",
    ):
        assert sentence in text


@pytest.mark.parametrize("seed", [-1, 2**31, float("nan"), float("inf"), True, [], "x"])
def test_a_seed_that_cannot_be_used_gets_a_sentence(seed):
    with pytest.raises(InputError, match="seed must be"):
        read_choice({"seed": seed})


@pytest.mark.parametrize("value", [None, ["flow"], {}, 3, "Flow"])
def test_values_that_no_page_sends_get_a_sentence_too(value):
    for name in ("family", "order", "advantage", "rollout"):
        with pytest.raises(InputError, match="cannot be"):
            read_choice({name: value})


def test_branchings_choose_their_steps():
    steps = {
        name: [i for i, k in enumerate(branches_of(name)) if k]
        for name in choices.BRANCHINGS
        if name != choices.CUSTOM
    }
    assert steps["noisy"] == list(range(8)) and steps["clean"] == list(range(17, 24))
    assert steps["spread"] == [0, 5, 10, 15, 20] and steps["every"] == list(range(24))
    assert branches_of(choices.CUSTOM, "8, 0, 4") == (8, 0, 4) + (0,) * 21


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        ("custom", "8, x", "whole numbers"),
        ("custom", "", "at least one step"),
        ("custom", "1", "needs at least 2 branches"),
        ("custom", "8," * 30, "Only 24 of the 25 steps"),
        ("custom", "9999", "between 0 and 256"),
        ("custom", 5, "whole numbers"),
        ("nosy", "", "Did you mean 'noisy'?"),
        (["noisy"], "", "Branching cannot be"),
    ],
)
def test_branches_that_cannot_be_used_get_a_sentence(kind, text, sentence):
    with pytest.raises(InputError, match=sentence.replace("?", r"\?")):
        branches_of(kind, text)


@pytest.mark.parametrize("family", choices.FAMILIES)
def test_influence_is_a_share_and_branching_moves_only_methods_that_branch_at_steps(family):
    names = methods_of(family)
    found = {
        kind: pulls.pulls(family, names, branches_of(kind), choices.EXACT_INJECTED[family])
        for kind in ("noisy", "clean")
    }
    for noisy, clean in zip(*found.values(), strict=True):
        for pull in (noisy, clean):
            assert sum(pull.shares) == pytest.approx(1.0)
            assert sum(pull.thirds()) == pytest.approx(1.0)
            assert min(pull.shares) >= 0.0
        moved = METHODS.get(noisy.method).branching == "per_step"
        assert (noisy.shares != clean.shares) == moved
        if moved:
            assert noisy.thirds()[0] == pytest.approx(1.0) and clean.thirds()[2] == pytest.approx(1.0)
            assert (noisy.trained, clean.trained) == (8, 7)


def test_steps_trained_are_those_of_the_engine():
    (pull,) = pulls.pulls("flow", ["grpo"], branches_of("every"), 0.7)
    config = pulls.RunConfig(rollout_steps=choices.STEPS)
    schedule = pulls.reference_schedule("flow", choices.STEPS)
    assert pull.trained == len(trained_steps(METHODS.get("grpo"), config, schedule))
    assert pull.shares[-1] == 0.0


@pytest.mark.parametrize(("levels", "trained"), [("stratified", [*range(1, 12)]), ("uniform", [*range(14)])])
def test_a_forward_row_has_no_influence_at_levels_that_it_never_draws(levels, trained):
    """AWM at T = 14 draws neither pure noise nor the last two levels (its program's times)."""
    awm = METHODS.get("awm")
    config = pulls.RunConfig(rollout_steps=14, forward_levels=levels)
    schedule = pulls.reference_schedule("flow", 14)
    shares = influence(awm, config, schedule)
    assert trained_steps(awm, config, schedule) == trained
    assert [step for step, share in enumerate(shares) if share > 0.0] == trained
    assert sum(shares) == pytest.approx(1.0)


def test_methods_are_checked_against_the_family():
    assert check_methods("flow", ["grpo", "rsm_first_order_flow"]) == ("rsm_first_order_flow", "grpo")
    for names, sentence in (
        ([], "at least one"),
        (["pcpo"], "does not train a flow"),
        (None, "at least one"),
    ):
        with pytest.raises(InputError, match=sentence):
            check_methods("flow", names)
