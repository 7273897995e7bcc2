"""The laboratory's closed forms, against autograd, sampling and each other."""

import pytest
import torch

from trainers.core.parameterization import predict_clean
from trainers.core.parameterization import score as score_of
from trainers.core.transition import mean
from trainers.lab.judging import sliced_distance
from trainers.lab.mixture import (
    reference_diffusion,
    reference_flow,
    reference_mixture,
    reference_reward,
    step_near,
    value_gradient,
)
from trainers.lab.training import frontier
from trainers.samplers.kernels import ode

LEVELS = [(0.0, 1.0), (0.3, 0.7), (0.8, 0.6), (0.99, 0.14)]
POINTS = torch.randn((40, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def log_density(mixture, points, signal, noise):
    laws = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=mixture.log_weights),
        torch.distributions.Independent(
            torch.distributions.Normal(signal * mixture.centres, (signal**2 + noise**2) ** 0.5), 1
        ),
    )
    return laws.log_prob(points)


@pytest.mark.parametrize(("signal", "noise"), LEVELS)
def test_the_score_is_the_gradient_of_the_log_density(signal, noise):
    mixture = reference_mixture()
    leaf = POINTS.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(log_density(mixture, leaf, signal, noise).sum(), leaf)
    torch.testing.assert_close(mixture.score(POINTS, signal, noise), expected)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_the_tilted_law_is_the_reference_times_the_exponential_of_the_reward(beta):
    reference, reward = reference_mixture(), reference_reward()
    ratio = log_density(reference.tilted(reward, beta), POINTS, 1.0, 0.0) - log_density(
        reference, POINTS, 1.0, 0.0
    )
    difference = ratio - reward(POINTS) / beta
    torch.testing.assert_close(difference, difference[:1].expand(len(POINTS)))


@pytest.mark.parametrize("schedule", [reference_flow(20), reference_diffusion(20)], ids=["flow", "diffusion"])
def test_the_perfect_output_has_the_perfect_score_and_clean_estimate(schedule):
    mixture = reference_mixture()
    for step in range(schedule.steps):
        signal, noise = float(schedule.signal[step]), float(schedule.noise[step])
        output = mixture.output(schedule, step, POINTS)
        torch.testing.assert_close(
            score_of(schedule, step, POINTS, output), mixture.score(POINTS, signal, noise)
        )
        if signal > 1e-6:
            clean = predict_clean(schedule, step, POINTS, output)
            torch.testing.assert_close(clean, mixture.clean(POINTS, signal, noise), rtol=1e-6, atol=1e-6)


def test_the_value_gradient_is_that_of_the_log_mean_exponential_reward():
    """∇V of V(x) = log E[exp(r(x0)) | x], by quadrature over the posterior's modes."""
    reference, reward, signal, noise = reference_mixture(), reference_reward(), 0.6, 0.8
    leaf = POINTS.clone().requires_grad_(True)
    away = leaf.unsqueeze(1) - signal * reference.centres
    share = torch.log_softmax(reference.log_weights - away.pow(2).sum(-1) / (2 * (signal**2 + noise**2)), 1)
    variance = noise**2 / (signal**2 + noise**2)
    centre = reference.centres + signal / (signal**2 + noise**2) * away
    value = torch.logsumexp(share + reward(centre) + variance * reward.slope.pow(2).sum() / 2, 1)
    (expected,) = torch.autograd.grad(value.sum(), leaf)
    got = value_gradient(reference, reference.tilted(reward, 1.0), POINTS, signal, noise)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("schedule", [reference_flow(100), reference_diffusion(5)], ids=["flow", "diffusion"])
def test_the_deterministic_sampler_of_a_perfect_model_reaches_the_law(schedule):
    law = reference_mixture().tilted(reference_reward(), 1.0)
    points = torch.randn((8192, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for step in range(schedule.steps):
        points = mean(ode(schedule, step), points, law.output(schedule, step, points))
    target = law.sample(8192, torch.Generator().manual_seed(2))
    assert sliced_distance(points, target) < 0.12


def test_the_frontier_rises_in_reward_and_kl_as_beta_falls():
    points = frontier((0.5, 1.0, 2.0, 1e6))
    assert [p["reward"] for p in points] == sorted((p["reward"] for p in points), reverse=True)
    assert [p["kl"] for p in points] == sorted((p["kl"] for p in points), reverse=True)
    assert points[-1]["reward"] == pytest.approx(3.0, abs=1e-4)
    assert points[-1]["kl"] == pytest.approx(0.0, abs=1e-4)
    law = reference_mixture().tilted(reference_reward(), 1.0)
    drawn = law.sample(100_000, torch.Generator().manual_seed(3))
    sampled = log_density(law, drawn, 1.0, 0.0) - log_density(reference_mixture(), drawn, 1.0, 0.0)
    assert points[1]["kl"] == pytest.approx(float(sampled.mean()), abs=0.02)


def test_the_nearest_step_is_found():
    assert step_near(reference_flow(10), 0.61) == 4
    assert step_near(reference_flow(10), 1.0) == 0
