"""The loss forms, the log-ratio and where the trust regions cut."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from tests.core.toys import flow, randn
from trainers.core import loss as core
from trainers.core.schedule import flow_schedule
from trainers.core.transition import Coefficients
from trainers.core.weights import (
    ScheduleMeans,
    StepWeights,
    guidance_strength,
    regression_weight,
    schedule_means,
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


def test_branches_that_no_longer_pull_are_told_from_those_that_do():
    ratios = torch.tensor([[0.3, 0.1, -0.3, -0.1, 0.3, 0.3]])
    signs = torch.tensor([[1.0, 1.0, -2.0, -2.0, -1.0, 0.0]])
    assert core.clipped(ratios, signs, C).tolist() == [[True, False, True, False, False, False]]
    assert core.clipped(ratios, signs, C, -0.05).tolist() == [[True, False, True, True, False, False]]
    assert not core.clipped(ratios, torch.zeros_like(ratios), C).any()


@pytest.mark.parametrize(
    ("form", "bounds"),
    [
        (core.clipped_matching, (C,)),
        (core.clipped_ratio, (math.log(1 + C), math.log(1 - C))),
    ],
)
def test_the_branches_told_apart_are_those_without_a_gradient(form, bounds):
    ratio, advantages = randn(40, 5, seed=1).mul(0.4).requires_grad_(True), randn(40, 5, seed=2)
    (slope,) = torch.autograd.grad(form(ratio, advantages, C).sum(), ratio)
    cut = core.clipped(ratio.detach(), advantages, *bounds)
    assert torch.equal(cut, slope == 0)
    assert 0.1 < float(cut.double().mean()) < 0.9


# -- AWM's weighting and DiffusionNFT's pair of losses -------------------------------------------------


def plain_errors(seed=0):
    """L of the present and L_old of the old policy (B, K), and their log-ratio with w = √2."""
    old, new = randn(4, 3, seed=seed).abs() + 0.1, randn(4, 3, seed=seed + 1).abs() + 0.1
    return new, old, old - new


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_the_powered_log_ratio_is_a_difference_of_generalized_huber_losses(power):
    """−(t/p)((L + 1e-10)^p − (L_old + 1e-10)^p)."""
    new, old, ratio = plain_errors()
    expected = [
        -0.6 / power * ((n + 1e-10) ** power - (o + 1e-10) ** power)
        for n, o in zip(new.flatten().tolist(), old.flatten().tolist(), strict=True)
    ]
    got = core.powered_log_ratio(ratio, old, 0.6, power)
    assert got.flatten().tolist() == pytest.approx(expected)


def test_power_one_is_the_log_ratio_itself_times_the_noise_level():
    _, old, ratio = plain_errors()
    torch.testing.assert_close(core.powered_log_ratio(ratio, old, 0.6, 1.0), 0.6 * ratio)


def test_the_powered_log_ratio_leaves_the_old_policy_with_huber_s_slope():
    """d ℓ/d ratio at the old policy is t·(L_old + ε)^(p − 1)."""
    _, old, _ = plain_errors()
    ratio = torch.zeros_like(old).requires_grad_(True)
    value = core.powered_log_ratio(ratio, old, 0.6, 0.25)
    assert not value.any()
    (slope,) = torch.autograd.grad(value.sum(), ratio)
    torch.testing.assert_close(slope, 0.6 * (old + 1e-10) ** -0.75)


def nft(output, old, target, share, step, slope):
    """DiffusionNFT one row and one sign at a time: (ρ·d₊ + (1 − ρ)·d₋)/b."""
    found = []
    for o, before, wanted, rho in zip(output, old, target, share.tolist(), strict=True):
        parts = []
        for implicit in ((1 - step) * before + step * o, (1 + step) * before - step * o):
            error = slope * (implicit - wanted)
            parts.append(error.pow(2).mean() / max(float(error.detach().abs().mean()), 1e-5))
        found.append((rho * parts[0] + (1 - rho) * parts[1]) / step)
    return torch.stack(found)


@pytest.mark.parametrize("step", [0.3, 1.0])
def test_the_contrast_pulls_one_implicit_policy_to_the_target_and_one_away(step):
    old, target = randn(5, 2, 3, 3, seed=1), randn(5, 2, 3, 3, seed=2)
    output = (old + 0.2 * randn(5, 2, 3, 3, seed=3)).requires_grad_(True)
    share = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0], dtype=torch.float64)
    got, expected = (
        core.contrast(output, old, target, share, step, 0.7),
        nft(output, old, target, share, step, 0.7),
    )
    torch.testing.assert_close(got, expected)
    slopes = [torch.autograd.grad(loss.sum(), output)[0] for loss in (got, expected)]
    torch.testing.assert_close(slopes[0], slopes[1])


def test_half_a_share_pulls_nowhere_at_the_old_policy():
    old, target = randn(2, 2, 3, 3, seed=1), randn(2, 2, 3, 3, seed=2)
    output = old.clone().requires_grad_(True)
    loss = core.contrast(output, old, target, torch.full((2,), 0.5, dtype=torch.float64), 1.0, 0.7)
    (slope,) = torch.autograd.grad(loss.sum(), output)
    assert float(slope.abs().max()) < 1e-15


MEANS = ScheduleMeans(slope=0.52, rate=2.6, std=0.4)


def test_natural_weights_use_the_kernels_slope():
    kernel = Coefficients(0.9, -0.2, 0.5)
    assert zeroth_order_weights("natural", "clip", kernel, 0.1, MEANS) == StepWeights(-0.4, 1.0, 1.0)


def test_fair_clip_acts_on_the_log_ratio_times_the_variance():
    kernel = Coefficients(0.9, -0.2, 0.5)
    assert zeroth_order_weights("natural", "fair_clip", kernel, 0.1, MEANS).ratio_scale == 0.25


@pytest.mark.parametrize("step", range(6))
def test_scaled_natural_weights_are_tau_over_root_delta(step):
    t = 1 - step / 6
    tau = 0.7 * math.sqrt(t / (1 - (5 / 6 if step == 0 else t)))
    kernel = flow_sde(flow(6), step, 0.7)
    weights = zeroth_order_weights("natural_scaled", "fair_clip", kernel, 1 / 6, MEANS)
    assert weights.loss_scale == pytest.approx(tau / math.sqrt(1 / 6))
    assert weights.slope == pytest.approx(kernel.output / (tau * math.sqrt(1 / 6)))


@pytest.mark.parametrize("k", [-0.2, 0.2])
def test_the_schedule_mean_replaces_the_size_of_the_slope_and_keeps_its_sign(k):
    weights = zeroth_order_weights("schedule_mean", "clip", Coefficients(0.9, k, 0.5), 0.1, MEANS)
    assert weights == StepWeights(math.copysign(0.52, k), 1.0, 1.0)


LAST = [0.0, 0.8]  # σ of the last step, which no mean of σ and no ζ takes in, noisy or not


@pytest.mark.parametrize("last", LAST)
def test_noise_aware_weights_have_mean_one_over_the_schedule_without_its_last_step(last):
    kernels = [Coefficients(0.9, -0.2, std) for std in (0.3, 0.5, last)]
    means = schedule_means(kernels, [0.1, 0.3, 0.6])
    slopes = [0.2 / 0.3, 0.2 / 0.5, *([0.2 / last] if last else [])]
    assert means == ScheduleMeans(
        pytest.approx(sum(slopes) / len(slopes)), pytest.approx((0.2 / 0.3 + 0.4) / 0.4), 0.4
    )
    scales = [zeroth_order_weights("noise_aware", "clip", k, 0.1, means).loss_scale for k in kernels[:2]]
    assert scales == pytest.approx([0.75, 1.25])


@pytest.mark.parametrize("last", LAST)
def test_interval_weights_keep_the_mean_slope_of_all_steps_but_the_last_and_follow_the_intervals(last):
    kernels, falls = [Coefficients(0.9, -0.2, std) for std in (0.3, 0.5, last)], [0.1, 0.3, 1e-3]
    means = schedule_means(kernels, falls)
    slopes = [
        zeroth_order_weights("interval", "clip", kernel, fall, means).slope
        for kernel, fall in zip(kernels[:2], falls[:2], strict=True)
    ]
    assert slopes[1] / slopes[0] == pytest.approx(3.0)
    assert sum(slopes) / 2 == pytest.approx(-(0.2 / 0.3 + 0.2 / 0.5) / 2)


def test_the_mean_slope_can_be_that_of_another_kernel():
    """PCPO's constant is DDPM's, whatever kernel samples; ζ and the mean of σ are the sampling kernel's."""
    kernels = [Coefficients(0.9, -0.2, std) for std in (0.3, 0.5, 0.6)]
    usual = [Coefficients(0.9, -0.2, std) for std in (0.1, 0.4, 0.0)]
    own, other = (schedule_means(kernels, [0.1, 0.3, 0.6], there) for there in (None, usual))
    assert other.slope == pytest.approx((2.0 + 0.5) / 2)
    assert own.slope != other.slope
    assert (other.rate, other.std) == (own.rate, own.std)


def test_pcpo_s_factor_is_the_one_worked_out_for_ten_steps_of_stable_diffusion_3():
    """T = 10, shift 3 applied as diffusers does, a = 0.7: Σ|k/σ|/ΣΔ over steps 0 … 8 is 3.9702.

    Over all ten steps it would be 5.7054. The published program writes 4.3152 without saying where from.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    schedule = flow_schedule(scheduler.sigmas, scheduler.timesteps)
    kernels = [flow_sde(schedule, step, 0.7) for step in range(10)]
    means = schedule_means(kernels, schedule.intervals().tolist())
    assert means.rate == pytest.approx(3.9702, abs=5e-5)
    assert 1 / means.std == pytest.approx(2.25223, abs=5e-6)


def test_the_normalised_clip_removes_the_drift_and_scales_by_sigma():
    kernel = Coefficients(0.9, -0.2, 0.5)
    weights = zeroth_order_weights("natural", "normalised_clip", kernel, 0.1, MEANS)
    assert weights == StepWeights(-0.4, 1.0, 0.5, centred=True)


@pytest.mark.parametrize(
    ("weight", "power"),
    [("forward_one", 0), ("forward_noise", 1), ("forward_noise_squared", 2), ("forward_huber", 0)],
)
def test_forward_slopes_make_the_log_ratio_a_difference_of_denoising_losses(weight, power):
    t, old, new, direction = 0.3, *(torch.randn(4, 2, 3, 3, dtype=torch.float64) for _ in range(3))
    slope = zeroth_order_weights(weight, "clip", Coefficients(1.0, -0.1, 0.0), 0.1, MEANS, t).slope
    ratio = core.log_ratio(new - old, (slope * (direction - old)).unsqueeze(1), slope)[:, 0]
    losses = [t**power * ((output - direction) ** 2).mean((1, 2, 3)) for output in (new, old)]
    torch.testing.assert_close(ratio, losses[1] - losses[0])


def test_a_schedule_without_noise_has_means_of_one():
    assert schedule_means([Coefficients(1.0, -0.1, 0.0)], [0.1]) == ScheduleMeans(1.0, 1.0, 1.0)
    only_the_last = [Coefficients(1.0, -0.1, 0.0), Coefficients(1.0, -0.1, 0.3)]
    assert schedule_means(only_the_last, [0.1, 0.1]) == ScheduleMeans(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ("one", 1.0),
        ("clean_error", 0.09),
        ("contrast", 0.18),
        ("natural", 0.08),
        ("inverse_variance", 0.16),
        ("score", 0.64),
        ("kl_natural", 0.16),
    ],
)
def test_regression_weights(weight, expected):
    assert regression_weight(weight, Coefficients(0.9, -0.2, 0.5), 0.3, 2.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        ("one", 1.0),
        ("clean_share", 0.3),
        ("clean_share_squared", 0.09),
        ("next_clean_share_squared", 0.25),
        ("inverse_kl", 0.5),
        ("discounted", 0.9**3 / 2),
    ],
)
def test_guidance_strengths(strength, expected):
    assert guidance_strength(strength, 0.3, 0.5, 2.0, 0.9, 3) == pytest.approx(expected)


def test_unknown_weights_are_refused():
    kernel = Coefficients(0.9, -0.2, 0.5)
    with pytest.raises(ValueError, match="heavy"):
        zeroth_order_weights("heavy", "clip", kernel, 0.1, MEANS)
    with pytest.raises(ValueError, match="heavy"):
        regression_weight("heavy", kernel, 0.3, 1.0)
    with pytest.raises(ValueError, match="strong"):
        guidance_strength("strong", 0.3)
