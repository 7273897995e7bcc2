"""One step of each sampler as its paper or reference code writes it, on the schedules of `tests.core.toys`.

(step, latents, output, noise level) → (mean, standard deviation). Expected values of the tests come from
here, never from the engine's kernels.
"""

import math

import torch

from tests.core.toys import alphas, levels

STEPS = 6


def flow_grpo_step(step, latents, velocity, noise_level):
    """Flow-GRPO: dt < 0, and sigma_max, the schedule's second entry, where sigma is 1."""
    sigma, sigma_next = levels(STEPS)[step], levels(STEPS)[step + 1]
    dt = sigma_next - sigma
    bounded = levels(STEPS)[1] if sigma == 1 else sigma
    std_dev = (sigma / (1 - bounded)).sqrt() * noise_level
    center = latents * (1 + std_dev**2 / (2 * sigma) * dt)
    center = center + velocity * (1 + std_dev**2 * (1 - sigma) / (2 * sigma)) * dt
    return center, std_dev * (-dt).sqrt()


def flow_cps_step(step, latents, velocity, noise_level):
    """Flow-CPS, through x̂0 and ε̂."""
    sigma, sigma_next = levels(STEPS)[step], levels(STEPS)[step + 1]
    std = sigma_next * math.sin(noise_level * math.pi / 2)
    clean, noise = latents - sigma * velocity, latents + (1 - sigma) * velocity
    return (1 - sigma_next) * clean + (sigma_next**2 - std**2).sqrt() * noise, std


def ddim_step(step, latents, noise, eta):
    """DDIM's equation 12 through the predicted x0, with σ of equation 16."""
    alpha, alpha_next = alphas(STEPS)[1][step], alphas(STEPS)[1][step + 1]
    std = eta * ((1 - alpha_next) / (1 - alpha)).sqrt() * (1 - alpha / alpha_next).sqrt()
    clean = (latents - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    return alpha_next.sqrt() * clean + (1 - alpha_next - std**2).sqrt() * noise, std


def flow_ode_step(step, latents, velocity, _=0.0):
    """Euler."""
    return latents - (levels(STEPS)[step] - levels(STEPS)[step + 1]) * velocity, torch.tensor(0.0)


def diffusion_ode_step(step, latents, noise, _=0.0):
    """DDIM."""
    return ddim_step(step, latents, noise, 0.0)


def stochastic_step(family):
    return flow_grpo_step if family == "flow" else ddim_step
