"""Schedules and the affine relations between output, clean estimate, noise estimate and score."""

import pytest
import torch

from tests.core.toys import alphas, diffusion, flow, levels, randn, schedule_of
from trainers.core.parameterization import (
    output_from_clean,
    predict_clean,
    predict_noise,
    score,
    score_slope,
)
from trainers.core.schedule import diffusion_schedule, flow_schedule

FAMILIES = ("flow", "diffusion")


def noised(family, step, clean, noise):
    """The forward law, written out: x_t = (1−t)x0 + tε or √ᾱ x0 + √(1−ᾱ) ε."""
    if family == "flow":
        t = float(levels(6)[step])
        return (1 - t) * clean + t * noise
    alpha = float(alphas(6)[1][step])
    return alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise


def true_output(family, clean, noise):
    return noise - clean if family == "flow" else noise


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("step", range(6))
def test_the_true_output_gives_back_clean_and_noise(family, step):
    schedule, clean, noise = schedule_of(family), randn(3, 2, 4, 4, seed=1), randn(3, 2, 4, 4, seed=2)
    latents, output = noised(family, step, clean, noise), true_output(family, clean, noise)
    torch.testing.assert_close(predict_clean(schedule, step, latents, output), clean)
    torch.testing.assert_close(predict_noise(schedule, step, latents, output), noise)
    torch.testing.assert_close(output_from_clean(schedule, step, latents, clean), output)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("step", range(6))
def test_any_output_is_consistent_with_the_state(family, step):
    """x̂0 and ε̂ of any output mix to the state, and x̂0 is inverted by `output_from_clean`."""
    schedule, latents, output = schedule_of(family), randn(3, 2, 4, 4, seed=1), randn(3, 2, 4, 4, seed=2)
    clean = predict_clean(schedule, step, latents, output)
    noise = predict_noise(schedule, step, latents, output)
    torch.testing.assert_close(noised(family, step, clean, noise), latents)
    torch.testing.assert_close(output_from_clean(schedule, step, latents, clean), output)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("step", range(6))
def test_score_is_the_published_form_and_its_slope_is_autograd(family, step):
    schedule, latents = schedule_of(family), randn(1, 1, 1, 1, seed=1)
    output = randn(1, 1, 1, 1, seed=2).requires_grad_(True)
    value = score(schedule, step, latents, output)
    if family == "flow":
        t = float(levels(6)[step])
        expected = -(latents + (1 - t) * output) / t
    else:
        expected = -output / (1 - float(alphas(6)[1][step])) ** 0.5
    torch.testing.assert_close(value, expected)
    (slope,) = torch.autograd.grad(expected.sum(), output)
    assert score_slope(schedule, step) == pytest.approx(float(slope), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("family", FAMILIES)
def test_score_is_the_gradient_of_the_log_density_of_a_known_law(family):
    """x0 ~ N(m, s²): the exact output must give ∇ log N(x; signal·m, signal²s² + noise²)."""
    schedule, mean, spread = schedule_of(family), 0.7, 0.5
    for step in range(6):
        latents = randn(4, 1, 1, 1, seed=step).requires_grad_(True)
        signal, noise = float(schedule.signal[step]), float(schedule.noise[step])
        variance = signal**2 * spread**2 + noise**2
        law = torch.distributions.Normal(signal * mean, variance**0.5)
        (expected,) = torch.autograd.grad(law.log_prob(latents).sum(), latents)
        centered = latents.detach() - signal * mean
        noise_hat = noise / variance * centered
        clean_hat = mean + signal * spread**2 / variance * centered
        output = true_output(family, clean_hat, noise_hat)
        torch.testing.assert_close(score(schedule, step, latents.detach(), output), expected)


def test_the_slope_of_a_flow_at_pure_noise_is_zero():
    assert score_slope(flow(), 0) == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_clean_end_has_no_score_and_no_unique_output(family):
    schedule, latents = schedule_of(family), randn(1, 2, 4, 4)
    for call in (score, output_from_clean):
        with pytest.raises(ValueError, match="noise level"):
            call(schedule, 6, latents, latents)
    with pytest.raises(ValueError, match="noise level"):
        score_slope(schedule, 6)


def test_a_schedule_holds_float64_levels_of_every_state():
    for schedule in (
        flow_schedule(levels(4).float(), torch.arange(4)),
        diffusion_schedule(alphas(4)[1].float(), alphas(4)[0]),
    ):
        assert schedule.steps == 4
        assert len(schedule.signal) == len(schedule.noise) == 5
        assert {schedule.signal.dtype, schedule.noise.dtype, schedule.timesteps.dtype} == {torch.float64}
        assert schedule.times() is schedule.noise
        assert float(schedule.noise[-1]) == 0.0
    torch.testing.assert_close(diffusion(4).signal ** 2 + diffusion(4).noise ** 2, torch.ones(5).double())
    torch.testing.assert_close(flow(4).signal + flow(4).noise, torch.ones(5).double())


@pytest.mark.parametrize(
    "sigmas",
    [
        [1.0, 0.5, 0.5, 0.0],
        [1.0, 0.2, 0.5, 0.0],
        [0.0, 0.5, 0.7, 1.0],
        [1.1, 0.5, 0.2, 0.0],
        [1.0, 0.5, 0.2, -0.1],
        [1.0, float("nan"), 0.2, 0.0],
        [1.0, 0.5, 0.0],
        [1.0, 0.7, 0.5, 0.2, 0.0],
    ],
)
def test_levels_that_do_not_fall_are_refused(sigmas):
    with pytest.raises(ValueError, match="oise levels"):
        flow_schedule(torch.tensor(sigmas), torch.arange(3))


@pytest.mark.parametrize(
    "cumulative", [[0.5, 0.4, 0.9, 1.0], [0.1, 0.2, 0.2, 1.0], [-0.1, 0.2, 0.3, 1.0], [0.1, 0.5, 1.0, 1.1]]
)
def test_alphas_that_do_not_rise_within_bounds_are_refused(cumulative):
    with pytest.raises(ValueError, match="oise levels"):
        diffusion_schedule(torch.tensor(cumulative), torch.arange(3))
