"""Advantages: closed forms, the invariances each kind promises, and groups without spread."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainers.core.advantages import advantages, standard_deviation, zero_spread

KINDS = ("group", "mean", "raw", "tilted")
NORMALISED = ("group", "bounded")
values = st.lists(st.floats(-10, 10, allow_nan=False, width=32), min_size=2, max_size=8)
quick = settings(max_examples=60, deadline=None)


def rewards_of(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def spread_of(numbers):
    return max(numbers) - min(numbers)


def by_hand(numbers, kind, tilt=1.0):
    """Plain Python, from the published definitions."""
    from math import exp, sqrt

    mean = sum(numbers) / len(numbers)
    if kind == "group":
        std = sqrt(sum((r - mean) ** 2 for r in numbers) / len(numbers))
        return [(r - mean) / (std + 1e-4) for r in numbers]
    if kind == "mean":
        return [r - mean for r in numbers]
    if kind == "raw":
        return list(numbers)
    top = max(numbers)
    weights = [exp((r - top) / tilt) for r in numbers]
    return [len(numbers) * w / sum(weights) - 1.0 for w in weights]


@quick
@given(values, st.sampled_from(KINDS), st.floats(0.3, 5.0))
def test_every_kind_is_its_closed_form(numbers, kind, tilt):
    assume(spread_of(numbers) > 1e-3)
    got = advantages(rewards_of(numbers), kind, clamp=1e6, tilt=tilt)
    expected = torch.tensor(by_hand(numbers, kind, tilt), dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@quick
@given(values, st.sampled_from(("group", "mean", "tilted")), st.floats(-50, 50))
def test_every_kind_but_raw_ignores_a_shift(numbers, kind, shift):
    assume(spread_of(numbers) > 1e-3)
    rewards = rewards_of(numbers)
    torch.testing.assert_close(
        advantages(rewards + shift, kind, 1e6), advantages(rewards, kind, 1e6), rtol=1e-6, atol=1e-6
    )
    assert not torch.equal(advantages(rewards + 1.0, "raw", 1e6), advantages(rewards, "raw", 1e6))


@quick
@given(values, st.floats(0.1, 1000.0))
def test_the_group_kind_ignores_the_scale_of_rewards(numbers, scale):
    """Up to the floor 1e-4 in the denominator, whose share is 1e-4/std."""
    assume(spread_of(numbers) > 0.5)
    rewards = rewards_of(numbers)
    small, large = advantages(rewards), advantages(rewards * scale)
    torch.testing.assert_close(small, large, rtol=0.02, atol=1e-6)


@quick
@given(values, st.sampled_from(("group", "mean", "tilted")))
def test_advantages_sum_to_zero(numbers, kind):
    total = advantages(rewards_of(numbers), kind, 1e9, tilt=2.0).sum()
    assert abs(float(total)) < 1e-6


@quick
@given(values, st.sampled_from(KINDS))
def test_a_better_sample_never_has_a_smaller_advantage(numbers, kind):
    rewards = rewards_of(numbers)
    got = advantages(rewards, kind)
    order = rewards.argsort(stable=True)
    assert bool((got[order].diff() >= -1e-9).all())


@quick
@given(values, st.sampled_from(KINDS), st.floats(0.1, 3.0))
def test_the_clamp_bounds_and_changes_nothing_within(numbers, kind, clamp):
    free = advantages(rewards_of(numbers), kind, 1e9)
    bounded = advantages(rewards_of(numbers), kind, clamp)
    assert float(bounded.abs().max()) <= clamp
    inside = free.abs() <= clamp
    assert torch.equal(free[inside], bounded[inside])
    assert torch.equal(bounded[~inside], clamp * free[~inside].sign())


@pytest.mark.parametrize("kind", ["group", "mean", "tilted"])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e-3, 1e6])
@pytest.mark.parametrize("size", [2, 3, 7, 8])
def test_a_group_without_spread_contributes_exactly_nothing(kind, value, size):
    for dtype in (torch.float32, torch.float64):
        rewards = torch.full((size,), value, dtype=dtype)
        assert bool(zero_spread(rewards))
        assert not advantages(rewards, kind).any()


def test_the_floor_does_not_turn_rounding_into_a_signal():
    """0.1 + 0.2 and 0.3 differ in the last bit; a group of such rewards says nothing."""
    rewards = torch.tensor([0.1 + 0.2, 0.3, 0.3, 0.3], dtype=torch.float64)
    assert bool(zero_spread(rewards))
    assert not advantages(rewards).any()


def test_small_true_differences_are_kept():
    rewards = torch.tensor([0.5, 0.5, 0.5, 0.501])
    assert not bool(zero_spread(rewards))
    assert float(advantages(rewards)[3]) > 1.0


def test_groups_are_the_last_dimension_and_do_not_mix():
    rewards = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [30.0, 20.0, 10.0]])
    assert zero_spread(rewards).tolist() == [False, True, False]
    for kind in KINDS:
        together = advantages(rewards, kind, clamp=100.0)
        alone = torch.stack([advantages(row, kind, clamp=100.0) for row in rewards])
        torch.testing.assert_close(together, alone)


def test_the_default_clamp_is_five():
    rewards = torch.zeros(100)
    rewards[0] = 1.0
    assert float(advantages(rewards).max()) == 5.0


def test_a_unit_group_is_normalised_by_the_population_deviation():
    torch.testing.assert_close(
        advantages(torch.tensor([-1.0, 1.0]).double()), torch.tensor([-1.0, 1.0]).double() / 1.0001
    )


@quick
@given(values, st.floats(0.5, 8.0))
def test_the_bounded_kind_is_the_group_kind_within_one(numbers, clamp):
    rewards = rewards_of(numbers)
    got = advantages(rewards, "bounded", clamp)
    torch.testing.assert_close(got, advantages(rewards, "group", clamp) / clamp)
    assert float(got.abs().max()) <= 1.0


@quick
@given(values, st.floats(1e-9, 1e-2), st.booleans())
def test_the_deviation_and_its_floor_are_the_chosen_ones(numbers, epsilon, unbiased):
    assume(spread_of(numbers) > 1e-3)
    mean, count = sum(numbers) / len(numbers), len(numbers)
    variance = sum((r - mean) ** 2 for r in numbers) / (count - 1 if unbiased else count)
    expected = [(r - mean) / (variance**0.5 + epsilon) for r in numbers]
    got = advantages(rewards_of(numbers), clamp=1e9, epsilon=epsilon, unbiased=unbiased)
    torch.testing.assert_close(got, rewards_of(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", NORMALISED)
def test_a_deviation_from_elsewhere_takes_the_place_of_the_group_s_own(kind):
    rewards = rewards_of([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [30.0, 20.0, 10.0]])
    got = advantages(rewards, kind, 1e9, epsilon=0.0, std=torch.tensor(4.0))
    scale = 1e9 if kind == "bounded" else 1.0
    expected = rewards_of([[-1, 0, 1], [0, 0, 0], [10, 0, -10]]) / 4.0
    torch.testing.assert_close(scale * got, expected)


def test_a_group_of_one_has_no_deviation():
    for unbiased in (False, True):
        assert standard_deviation(torch.tensor([[3.0], [7.0]]), unbiased).tolist() == [0.0, 0.0]
        assert not advantages(torch.tensor([[3.0], [7.0]]), unbiased=unbiased).any()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="ranked"):
        advantages(torch.ones(2), "ranked")
