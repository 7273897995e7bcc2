"""The loss forms, the log-ratio and where the trust regions cut."""

import math

import pytest
import torch

from tests.core.toys import flow, randn
from trainers.core import loss as core
from trainers.core.transition import Coefficients
from trainers.core.weights import (
    StepWeights,
    guidance_strength,
    regression_weight,
    zeroth_order_weights,
)
from trainers.samplers.kernels import flow_sde


def test_squared_distance_is_a_mean_over_elements():
    first, second = randn(3, 2, 4, 4, seed=1), randn(3, 2, 4, 4, seed=2)
    expected = [float(sum((a - b) ** 2 for a, b in zip(x.flatten(), y.flatten(), strict=True)) / 32)
                for x, y in zip(first, second, strict=True)]  # fmt: skip
    assert core.squared_distance(first, second).tolist() == pytest.approx(expected)


def test_matching_regresses_on_anchor_plus_guidance_and_moves_only_the_output():
    output, anchor, guidance = (randn(3, 2, 4, 4, seed=i).requires_grad_(True) for i in range(3))
    loss = core.matching(output, anchor, guidance)
    torch.testing.assert_close(loss, ((output - anchor - guidance) ** 2).mean((1, 2, 3)))
    slopes = torch.autograd.grad(loss.sum(), (output, anchor, guidance), allow_unused=True)
    torch.testing.assert_close(slopes[0], 2 * (output - anchor - guidance) / 32)
    assert slopes[1] is None
    assert slopes[2] is None


@pytest.mark.parametrize("k", [-0.3, 0.8])
@pytest.mark.parametrize("std", [0.2, 1.5])
def test_the_log_ratio_is_a_difference_of_normal_log_densities(k, std):
    """ℓ = log N(x'; μ_θ, σ²) − log N(x'; μ_old, σ²) with x' = μ_old + σε and μ = cx + ko."""
    latents, output, old = (randn(3, 2, 4, 4, seed=i) for i in range(3))
    noise = randn(3, 5, 2, 4, 4, seed=9)
    means = [0.9 * latents + k * o for o in (output, old)]
    sample = means[1].unsqueeze(1) + std * noise
    new, before = (
        torch.distributions.Normal(mean.unsqueeze(1), std).log_prob(sample).mean((2, 3, 4)) for mean in means
    )
    got = core.log_ratio(output - old, noise, Coefficients(0.9, k, std).slope)
    torch.testing.assert_close(got, new - before)


def test_the_log_ratio_of_an_unmoved_policy_is_exactly_zero():
    assert not core.log_ratio(torch.zeros(2, 2, 4, 4), randn(2, 3, 2, 4, 4).float(), -3.0).any()


C = 0.2
ADVANTAGES = torch.tensor([[2.0, -2.0, 0.5, -0.5]], dtype=torch.float64)


def slopes(form, ratio):
    """d loss / dℓ of one branch per advantage."""
    ratio = torch.full_like(ADVANTAGES, ratio).requires_grad_(True)
    (slope,) = torch.autograd.grad(form(ratio, ADVANTAGES, C).sum(), ratio)
    return slope


def test_the_matching_loss_is_its_formula():
    for ratio in (-1.0, -0.21, -0.1, 0.0, 0.1, 0.21, 1.0):
        expected = [max(0.0, C * abs(a) - a * ratio) for a in ADVANTAGES[0].tolist()]
        got = core.clipped_matching(torch.full_like(ADVANTAGES, ratio), ADVANTAGES, C)
        assert got[0].tolist() == pytest.approx(expected)


def test_the_ratio_loss_is_ppos():
    for ratio in (-1.0, -0.25, -0.21, 0.0, 0.17, 0.19, 1.0):
        rho = math.exp(ratio)
        bounded = min(max(rho, 1 - C), 1 + C)
        expected = [-min(rho * a, bounded * a) for a in ADVANTAGES[0].tolist()]
        got = core.clipped_ratio(torch.full_like(ADVANTAGES, ratio), ADVANTAGES, C)
        assert got[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("form", [core.clipped_matching, core.clipped_ratio])
def test_both_forms_pull_by_minus_the_advantage_at_the_old_policy(form):
    torch.testing.assert_close(slopes(form, 0.0), -ADVANTAGES)


@pytest.mark.parametrize(
    ("form", "upper", "lower"),
    [(core.clipped_matching, C, -C), (core.clipped_ratio, math.log(1 + C), math.log(1 - C))],
)
def test_the_pull_ends_at_the_boundary_of_its_own_side_only(form, upper, lower):
    good, bad = ADVANTAGES[0] > 0, ADVANTAGES[0] < 0
    beyond_upper, within_upper = slopes(form, upper + 1e-6)[0], slopes(form, upper - 1e-6)[0]
    assert not beyond_upper[good].any()
    assert bool((beyond_upper[bad] > 0).all())
    assert bool((within_upper[good] < 0).all())
    beyond_lower, within_lower = slopes(form, lower - 1e-6)[0], slopes(form, lower + 1e-6)[0]
    assert not beyond_lower[bad].any()
    assert bool((beyond_lower[good] < 0).all())
    assert bool((within_lower[bad] > 0).all())


def test_a_branch_without_advantage_has_no_loss_gradient():
    for form in (core.clipped_matching, core.clipped_ratio):
        ratio = torch.tensor([[0.1, -0.1, 0.0]]).requires_grad_(True)
        (slope,) = torch.autograd.grad(form(ratio, torch.zeros(1, 3), C).sum(), ratio)
        assert not slope.any()


def test_the_clipped_share_counts_the_branches_that_no_longer_pull():
    ratios = torch.tensor([[0.3, 0.1, -0.3, -0.1, 0.3, 0.3]])
    signs = torch.tensor([[1.0, 1.0, -2.0, -2.0, -1.0, 0.0]])
    # Cut: first and third. Pulling: all but the last, which has no advantage.
    assert float(core.clipped_share(ratios, signs, C)) == pytest.approx(2 / 5)
    assert float(core.clipped_share(ratios, torch.zeros_like(ratios), C)) == 0.0


def test_natural_weights_use_the_kernels_slope():
    kernel = Coefficients(0.9, -0.2, 0.5)
    assert zeroth_order_weights("natural", "clip", kernel, 0.1, 7.0) == StepWeights(-0.4, 1.0, 1.0)


def test_fair_clip_acts_on_the_log_ratio_times_the_variance():
    kernel = Coefficients(0.9, -0.2, 0.5)
    assert zeroth_order_weights("natural", "fair_clip", kernel, 0.1, 7.0).ratio_scale == 0.25


@pytest.mark.parametrize("step", range(6))
def test_scaled_natural_weights_are_tau_over_root_delta(step):
    t = 1 - step / 6
    tau = 0.7 * math.sqrt(t / (1 - (5 / 6 if step == 0 else t)))
    kernel = flow_sde(flow(6), step, 0.7)
    weights = zeroth_order_weights("natural_scaled", "fair_clip", kernel, 1 / 6, 7.0)
    assert weights.loss_scale == pytest.approx(tau / math.sqrt(1 / 6))
    assert weights.slope == pytest.approx(kernel.output / (tau * math.sqrt(1 / 6)))


@pytest.mark.parametrize("k", [-0.2, 0.2])
def test_the_schedule_mean_replaces_the_size_of_the_slope_and_keeps_its_sign(k):
    weights = zeroth_order_weights("schedule_mean", "clip", Coefficients(0.9, k, 0.5), 0.1, 0.52)
    assert weights == StepWeights(math.copysign(0.52, k), 1.0, 1.0)


def test_first_order_weights_and_strengths():
    kernel = Coefficients(0.9, -0.2, 0.5)
    assert regression_weight("one", kernel) == 1.0
    assert regression_weight("inverse_variance", kernel) == pytest.approx(0.2**2 / 0.5**2)
    assert guidance_strength("one", 0.3) == 1.0
    assert guidance_strength("clean_share", 0.3) == 0.3


def test_unknown_weights_are_refused():
    kernel = Coefficients(0.9, -0.2, 0.5)
    with pytest.raises(ValueError, match="heavy"):
        zeroth_order_weights("heavy", "clip", kernel, 0.1, 1.0)
    with pytest.raises(ValueError, match="heavy"):
        regression_weight("heavy", kernel)
    with pytest.raises(ValueError, match="strong"):
        guidance_strength("strong", 0.3)
