"""A Gaussian data law N(m, s²) with its exact velocity or noise is reproduced by every sampler.

The exact output is affine in the state and so is every kernel, so the sampled law stays Gaussian and its mean
and variance can be followed without sampling: what is left is the discretisation error, which must vanish.
A second test draws the samples through `trajectory`.

Flow-CPS replaces a fixed share of the noise at every step, which shrinks the spread however fine the schedule
is, so it is followed with a noise level that falls like the square root of the step size.
"""

import pytest
import torch

from tests.core.toys import diffusion, flow
from trainers.core.transition import mean
from trainers.samplers.kernels import ddim, flow_constant, flow_cps, flow_sde, ode
from trainers.samplers.rollout import finished, trajectory

MEAN, SPREAD = 0.8, 0.4

SAMPLERS = [
    pytest.param(flow, ode, 0.0, id="flow ode"),
    pytest.param(flow, flow_sde, 0.7, id="flow_sde 0.7"),
    pytest.param(flow, flow_sde, 0.3, id="flow_sde 0.3"),
    pytest.param(flow, flow_constant, 0.3, id="flow_constant 0.3"),
    pytest.param(flow, flow_cps, 0.5, id="flow_cps 0.5"),
    pytest.param(diffusion, ode, 0.0, id="diffusion ode"),
    pytest.param(diffusion, ddim, 0.0, id="ddim 0"),
    pytest.param(diffusion, ddim, 0.5, id="ddim 0.5"),
    pytest.param(diffusion, ddim, 1.0, id="ddim 1"),
]


def exact_output(schedule, step, latents):
    """E[ε − x0 | x] of the flow or E[ε | x] of the diffusion, for x0 ~ N(m, s²)."""
    signal, noise = float(schedule.signal[step]), float(schedule.noise[step])
    centered = (latents - signal * MEAN) / (signal**2 * SPREAD**2 + noise**2)
    if schedule.family == "flow":
        return noise * centered - (MEAN + signal * SPREAD**2 * centered)
    return noise * centered


def start(schedule):
    """Mean and standard deviation of the law at the first noise level."""
    signal, noise = float(schedule.signal[0]), float(schedule.noise[0])
    return signal * MEAN, (signal**2 * SPREAD**2 + noise**2) ** 0.5


def followed(schedule, kernel, noise_level):
    """Mean and standard deviation after the last step, exactly."""
    center, spread = start(schedule)
    for step in range(schedule.steps):
        coefficients = kernel(schedule, step, noise_level)
        points = torch.tensor([center, center + 1.0], dtype=torch.float64)
        after = mean(coefficients, points, exact_output(schedule, step, points))
        slope = float(after[1] - after[0])
        center, spread = float(after[0]), (slope**2 * spread**2 + coefficients.std**2) ** 0.5
    return center, spread


def level_for(kernel, noise_level, steps):
    return noise_level * (15 / steps) ** 0.5 if kernel is flow_cps else noise_level


@pytest.mark.parametrize(("make", "kernel", "noise_level"), SAMPLERS)
def test_the_law_is_reached_as_the_steps_get_finer(make, kernel, noise_level):
    errors = []
    for steps in (15, 960):
        center, spread = followed(make(steps), kernel, level_for(kernel, noise_level, steps))
        errors.append(abs(center - MEAN) + abs(spread - SPREAD))
    assert errors[1] < 0.005
    assert errors[1] < 0.06 * errors[0]


def test_a_fixed_share_of_new_noise_keeps_flow_cps_from_the_law():
    center, spread = followed(flow(960), flow_cps, 0.5)
    assert center == pytest.approx(MEAN, abs=1e-9)
    assert spread == pytest.approx(SPREAD - 0.032, abs=0.001)


@pytest.mark.parametrize(("make", "kernel", "noise_level"), SAMPLERS)
def test_the_law_is_drawn(make, kernel, noise_level):
    schedule = make(300)
    generator = torch.Generator().manual_seed(3)
    center, spread = start(schedule)
    drawn = torch.randn((1000, 1, 4, 4), generator=generator, dtype=torch.float64)
    result = trajectory(
        lambda latents, step, index: exact_output(schedule, step, latents),
        schedule,
        center + spread * drawn,
        kernel,
        level_for(kernel, noise_level, 300),
        generator,
    )
    # 16,000 draws: the standard error is 0.0032 of the mean and 0.0022 of the deviation.
    assert float(result.final.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(result.final.std()) == pytest.approx(SPREAD, abs=0.02)


@pytest.mark.parametrize("make", [flow, diffusion])
def test_the_second_order_solver_nears_the_law_and_is_closer_to_it_than_the_first_order_one(make):
    """Deterministic samplers map the starting law by an affine function, which two points tell."""

    def error(solver, steps):
        schedule = make(steps)
        center, spread = start(schedule)
        points = torch.tensor([center, center + spread], dtype=torch.float64).view(2, 1, 1, 1)
        ends = finished(
            lambda latents, step, index: exact_output(schedule, step, latents), schedule, points, solver
        ).flatten()
        return abs(float(ends[0]) - MEAN) + abs(float(ends[1] - ends[0]) - SPREAD)

    for steps in (20, 80):
        assert error("dpm2", steps) < 0.6 * error("euler", steps)
    assert error("dpm2", 960) < 0.005
    assert error("dpm2", 960) < 0.06 * error("dpm2", 15)
