"""Transition kernels against the published forms, diffusers' own schedulers and torch.distributions.

Every expected mean and standard deviation is written out in `tests.samplers.published` from its source;
nothing of the kernels is used to make them.
"""

import math

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from tests.core.toys import alphas, diffusion, flow, randn
from tests.samplers.published import (
    STEPS,
    dance_grpo_step,
    ddim_step,
    diffusion_ode_step,
    flow_cps_step,
    flow_grpo_step,
    flow_ode_step,
    pcpo_low_step,
    pcpo_step,
    stable_diffusion_15,
)
from trainers.core.schedule import diffusion_schedule, flow_schedule
from trainers.core.transition import draw, log_prob, mean, noise_like
from trainers.errors import InputError
from trainers.samplers.kernels import (
    KERNELS,
    ddim,
    flow_constant,
    flow_cps,
    flow_sde,
    ode,
    pcpo,
    pcpo_low,
    stochastic_kernel,
)

PUBLISHED = [
    pytest.param(flow_sde, flow(STEPS), flow_grpo_step, 0.7, id="flow_sde"),
    pytest.param(flow_sde, flow(STEPS), flow_grpo_step, 0.2, id="flow_sde, little noise"),
    pytest.param(flow_cps, flow(STEPS), flow_cps_step, 0.8, id="flow_cps"),
    pytest.param(flow_cps, flow(STEPS), flow_cps_step, 0.3, id="flow_cps, little noise"),
    pytest.param(flow_constant, flow(STEPS), dance_grpo_step, 0.3, id="flow_constant"),
    pytest.param(flow_constant, flow(STEPS), dance_grpo_step, 0.8, id="flow_constant, much noise"),
    pytest.param(ddim, diffusion(STEPS), ddim_step, 1.0, id="ddpm"),
    pytest.param(ddim, diffusion(STEPS), ddim_step, 0.5, id="ddim, eta 0.5"),
    pytest.param(ddim, diffusion(STEPS), ddim_step, 0.0, id="ddim, eta 0"),
    pytest.param(ode, flow(STEPS), flow_ode_step, 0.7, id="flow ode"),
    pytest.param(ode, diffusion(STEPS), diffusion_ode_step, 0.7, id="diffusion ode"),
]


@pytest.mark.parametrize(("kernel", "schedule", "published", "noise_level"), PUBLISHED)
@pytest.mark.parametrize("step", range(STEPS))
def test_a_kernel_is_its_published_form(kernel, schedule, published, noise_level, step):
    latents, output, noise = (randn(3, 2, 4, 4, seed=i) for i in range(3))
    coefficients = kernel(schedule, step, noise_level)
    center, std = published(step, latents, output, noise_level)
    torch.testing.assert_close(mean(coefficients, latents, output), center)
    assert coefficients.std == pytest.approx(float(std), rel=1e-12, abs=1e-15)
    drawn = draw(coefficients, latents, output, noise)
    torch.testing.assert_close(drawn.sample, center + std * noise)
    torch.testing.assert_close(drawn.mean, center)
    assert drawn.std == coefficients.std
    assert drawn.noise is noise


@pytest.mark.parametrize(("kernel", "schedule", "published", "noise_level"), PUBLISHED)
@pytest.mark.parametrize("step", range(STEPS))
def test_k_and_c_are_autograd_of_the_published_mean(kernel, schedule, published, noise_level, step):
    latents = randn(1, 1, 1, 1, seed=1).requires_grad_(True)
    output = randn(1, 1, 1, 1, seed=2).requires_grad_(True)
    center, _ = published(step, latents, output, noise_level)
    by_state, by_output = torch.autograd.grad(center.sum(), (latents, output))
    coefficients = kernel(schedule, step, noise_level)
    assert coefficients.state == pytest.approx(float(by_state), rel=1e-12)
    assert coefficients.output == pytest.approx(float(by_output), rel=1e-12)


TIMES, CUMULATIVE = stable_diffusion_15()
SD15 = diffusion_schedule(CUMULATIVE, TIMES)
ROOTS = [
    pytest.param(pcpo, pcpo_step, id="pcpo"),
    pytest.param(pcpo_low, pcpo_low_step, id="pcpo_low"),
]


@pytest.mark.parametrize(("kernel", "published"), ROOTS)
@pytest.mark.parametrize("eta", [1.0, 0.4])
@pytest.mark.parametrize("step", [0, 1, 10, 20, 30, 40, 47, 48, 49])
def test_pcpo_s_step_is_the_published_one_on_stable_diffusion_15(kernel, published, eta, step):
    latents, output = (randn(3, 2, 4, 4, seed=i).requires_grad_(True) for i in range(2))
    center, std = published(step, latents, output, eta, CUMULATIVE)
    coefficients = kernel(SD15, step, eta)
    torch.testing.assert_close(mean(coefficients, latents, output), center, rtol=1e-9, atol=1e-12)
    assert coefficients.std == pytest.approx(float(std), rel=1e-9)
    by_state, by_output = torch.autograd.grad(center.sum(), (latents, output))
    assert coefficients.state == pytest.approx(float(by_state.flatten()[0]), rel=1e-9)
    assert coefficients.output == pytest.approx(float(by_output.flatten()[0]), rel=1e-9)


@pytest.mark.parametrize(
    ("kernel", "published"),
    [
        (ddim, [0.4545, 0.3908, 0.3229, 0.2518, 0.1771]),
        (pcpo, [0.4467, 0.4304, 0.3915, 0.3128, 0.1919]),
        (pcpo_low, [0.0275, 0.0199, 0.0144, 0.0109, 0.0092]),
    ],
)
def test_noise_of_fifty_steps_of_stable_diffusion_15(kernel, published):
    """σ at t = 981, 781, 581, 381 and 181, worked out from the published program's formulas."""
    found = [kernel(SD15, step, 1.0).std for step in (0, 10, 20, 30, 40)]
    assert found == pytest.approx(published, abs=5.1e-5)


def test_slopes_of_fifty_steps_of_stable_diffusion_15():
    """|k/σ|: 0.5169 on average for DDPM, 0.528 for PCPO's larger root, 4.5 everywhere for the smaller one."""
    slopes = {
        kernel: [-kernel(SD15, step, 1.0).slope for step in range(50)] for kernel in (ddim, pcpo, pcpo_low)
    }
    assert sum(slopes[ddim]) / 50 == pytest.approx(0.5168997, abs=5e-7)
    assert sum(slopes[pcpo]) / 50 == pytest.approx(0.528, abs=5.1e-4)
    assert slopes[pcpo_low] == pytest.approx([4.5] * 50, rel=1e-9)
    chosen = [slopes[pcpo][step] for step in (0, 10, 20, 30, 40, 45)]
    assert chosen == pytest.approx([0.513, 0.440, 0.396, 0.387, 0.449, 0.651], abs=5.1e-4)


@pytest.mark.parametrize("kernel", [pcpo, pcpo_low])
def test_pcpo_s_step_to_a_clean_picture_is_deterministic(kernel):
    """Where ᾱ' = 1 no noise may be left over, and DDIM's step is what remains."""
    last, exact = kernel(diffusion(STEPS), STEPS - 1, 1.0), ode(diffusion(STEPS), STEPS - 1)
    assert last.std == 0.0
    assert (last.state, last.output) == pytest.approx((exact.state, exact.output), rel=1e-12)


@pytest.mark.parametrize("kernel", [flow_sde, flow_cps, flow_constant])
@pytest.mark.parametrize("step", range(STEPS))
def test_without_noise_a_flow_kernel_is_the_euler_step(kernel, step):
    even, quiet = ode(flow(STEPS), step), kernel(flow(STEPS), step, 0.0)
    assert (quiet.state, quiet.output, quiet.std) == pytest.approx((even.state, even.output, 0.0), rel=1e-12)
    almost = kernel(flow(STEPS), step, 1e-5)
    assert (almost.state, almost.output) == pytest.approx((even.state, even.output), rel=1e-8)


@pytest.mark.parametrize("step", range(STEPS))
def test_without_noise_the_diffusion_kernel_is_ddim(step):
    even, quiet = ode(diffusion(STEPS), step, 0.9), ddim(diffusion(STEPS), step, 0.0)
    assert quiet == even
    assert even.std == 0.0
    almost = ddim(diffusion(STEPS), step, 1e-6)
    assert (almost.state, almost.output) == pytest.approx((even.state, even.output), rel=1e-9)


@pytest.mark.parametrize("step", range(STEPS))
def test_ddim_with_eta_one_is_the_ddpm_posterior(step):
    """q(x' | x, x̂0) = N( (√ᾱ' β/(1−ᾱ)) x̂0 + (√α (1−ᾱ')/(1−ᾱ)) x, β (1−ᾱ')/(1−ᾱ) ), α = ᾱ/ᾱ', β = 1 − α."""
    latents, noise = randn(2, 2, 4, 4, seed=1), randn(2, 2, 4, 4, seed=2)
    total, total_next = alphas(STEPS)[1][step], alphas(STEPS)[1][step + 1]
    alpha = total / total_next
    clean = (latents - (1 - total).sqrt() * noise) / total.sqrt()
    posterior = total_next.sqrt() * (1 - alpha) / (1 - total) * clean
    posterior = posterior + alpha.sqrt() * (1 - total_next) / (1 - total) * latents
    coefficients = ddim(diffusion(STEPS), step, 1.0)
    torch.testing.assert_close(mean(coefficients, latents, noise), posterior)
    variance = (1 - alpha) * (1 - total_next) / (1 - total)
    assert coefficients.std**2 == pytest.approx(float(variance), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("noise_level", [0.01, 0.7, 1.0])
def test_a_stochastic_step_always_moves_with_the_output(noise_level):
    """k must be finite and non-zero wherever noise is injected: guidance divides by it."""
    for kernel, schedule in (
        (flow_sde, flow(20)),
        (flow_cps, flow(20, shift=3.0)),
        (flow_constant, flow(20, shift=3.0)),
        (ddim, diffusion(20)),
        (pcpo, SD15),
        (pcpo_low, SD15),
    ):
        for step in range(schedule.steps):
            coefficients = kernel(schedule, step, noise_level)
            if coefficients.std > 0:
                assert math.isfinite(coefficients.slope)
                assert coefficients.output < 0


def test_log_prob_is_that_of_torch_distributions_averaged_over_elements():
    center, sample = randn(5, 2, 4, 4, seed=1), randn(5, 2, 4, 4, seed=2)
    for std in (1e-3, 0.4, 7.0):
        expected = torch.distributions.Normal(center, std).log_prob(sample).mean((1, 2, 3))
        torch.testing.assert_close(log_prob(sample, center, std), expected)


@pytest.mark.parametrize(
    ("kernel", "schedule"),
    [
        (flow_sde, flow(STEPS)),
        (flow_cps, flow(STEPS)),
        (flow_constant, flow(STEPS)),
        (ddim, diffusion(STEPS)),
        (pcpo, SD15),
        (pcpo_low, SD15),
    ],
)
@pytest.mark.parametrize("step", range(STEPS - 1))
def test_the_natural_weight_makes_the_exact_kl(kernel, schedule, step):
    coefficients = kernel(schedule, step, 0.6)
    latents, first, second = (randn(3, 2, 4, 4, seed=i) for i in range(3))
    laws = [
        torch.distributions.Normal(mean(coefficients, latents, output), coefficients.std)
        for output in (first, second)
    ]
    expected = torch.distributions.kl_divergence(*laws)
    torch.testing.assert_close(coefficients.natural_weight * (first - second) ** 2, expected)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_euler_step_is_that_of_diffusers(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(STEPS)
    schedule = flow_schedule(scheduler.sigmas, scheduler.timesteps)
    latents = randn(2, 2, 4, 4, seed=5).float()
    for step, timestep in enumerate(scheduler.timesteps):
        velocity = randn(2, 2, 4, 4, seed=step).float()
        expected = scheduler.step(velocity, timestep, latents).prev_sample
        latents = mean(ode(schedule, step), latents, velocity)
        torch.testing.assert_close(latents, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("final_is_clean", [True, False])
def test_the_ddim_step_is_that_of_diffusers(eta, final_is_clean):
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=final_is_clean,
    )
    scheduler.set_timesteps(STEPS)
    last = 1.0 if final_is_clean else float(scheduler.alphas_cumprod[0])
    cumulative = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], torch.tensor([last])])
    schedule = diffusion_schedule(cumulative, scheduler.timesteps)
    latents = randn(2, 2, 4, 4, seed=5).float()
    for step, timestep in enumerate(scheduler.timesteps):
        output, noise = randn(2, 2, 4, 4, seed=step).float(), randn(2, 2, 4, 4, seed=50 + step).float()
        expected = scheduler.step(output, timestep, latents, eta=eta, variance_noise=noise).prev_sample
        latents = draw(ddim(schedule, step, eta), latents, output, noise).sample
        torch.testing.assert_close(latents, expected, rtol=2e-5, atol=2e-6)


def test_each_family_has_its_usual_noise():
    assert stochastic_kernel("flow") is flow_sde
    assert stochastic_kernel("diffusion") is ddim
    assert list(KERNELS.items()) == [
        ("ode", ode),
        ("flow_sde", flow_sde),
        ("flow_constant", flow_constant),
        ("flow_cps", flow_cps),
        ("ddim", ddim),
        ("pcpo", pcpo),
        ("pcpo_low", pcpo_low),
    ]


def test_noise_is_drawn_by_the_generator_alone():
    latents = torch.zeros(3, 2, 4, 4, dtype=torch.float64)
    torch.manual_seed(0)
    first = noise_like(latents, 5, torch.Generator().manual_seed(7))
    torch.manual_seed(1)
    second = noise_like(latents, 5, torch.Generator().manual_seed(7))
    assert first.shape == (3, 5, 2, 4, 4)
    assert first.dtype == torch.float64
    assert torch.equal(first, second)
    assert not torch.equal(first, noise_like(latents, 5, torch.Generator().manual_seed(8)))
    assert abs(float(first.mean())) < 0.2
    assert float(first.std()) == pytest.approx(1.0, abs=0.15)


def test_kernels_are_chosen_by_name_within_a_family():
    assert stochastic_kernel("flow", "flow_cps") is flow_cps
    assert stochastic_kernel("flow", "flow_constant") is flow_constant
    assert stochastic_kernel("diffusion", "ddim") is ddim
    assert stochastic_kernel("diffusion", "pcpo") is pcpo
    assert stochastic_kernel("diffusion", "pcpo_low") is pcpo_low
    with pytest.raises(InputError, match="flow_sde or flow_cps or flow_constant"):
        stochastic_kernel("flow", "pcpo")
    with pytest.raises(InputError, match="ddim or pcpo or pcpo_low"):
        stochastic_kernel("diffusion", "flow_cps")
