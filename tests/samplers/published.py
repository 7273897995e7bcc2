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


def dance_grpo_step(step, latents, velocity, eta):
    """DanceGRPO: the score through x̂0, a noise rate that is the same at every step; dt < 0."""
    sigma, sigma_next = levels(STEPS)[step], levels(STEPS)[step + 1]
    dt = sigma_next - sigma
    clean = latents - sigma * velocity
    score = -(latents - (1 - sigma) * clean) / sigma**2
    return latents + dt * velocity + dt * (-0.5 * eta**2 * score), eta * (-dt).sqrt()


PCPO_WEIGHT = 4.5


def pcpo_step(step, latents, noise, eta, cumulative=None, sign=1.0):
    """PCPO: DDIM with the σ at which |c₁ ± √(1 − ᾱ' − σ²)|/σ is 4.5.

    The published program takes the larger root (sign 1), where the sum has that size. Where σ would leave no
    direction, which is only the case in a step to ᾱ' = 1, there is nothing to be published.
    """
    cumulative = alphas(STEPS)[1] if cumulative is None else cumulative
    alpha, alpha_next = cumulative[step], cumulative[step + 1]
    reach = ((1 - alpha) / (alpha / alpha_next)).sqrt()
    inner = (1 + PCPO_WEIGHT**2) * (1 - alpha_next) - reach**2
    std = eta * (PCPO_WEIGHT * reach + sign * inner.sqrt()) / (1 + PCPO_WEIGHT**2)
    clean = (latents - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    return alpha_next.sqrt() * clean + (1 - alpha_next - std**2).sqrt() * noise, std


def pcpo_low_step(step, latents, noise, eta, cumulative=None):
    """PCPO with the smaller root."""
    return pcpo_step(step, latents, noise, eta, cumulative, -1.0)


def stable_diffusion_15():
    """Time steps 981, 961 … 1 of 50 steps and their ᾱ; the state after the last has ᾱ of time 0."""
    root = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    cumulative = (1 - root**2).cumprod(0)
    times = torch.arange(981, 0, -20)
    return times, torch.cat([cumulative[times], cumulative[:1]])


def flow_ode_step(step, latents, velocity, _=0.0):
    """Euler."""
    return latents - (levels(STEPS)[step] - levels(STEPS)[step + 1]) * velocity, torch.tensor(0.0)


def diffusion_ode_step(step, latents, noise, _=0.0):
    """DDIM."""
    return ddim_step(step, latents, noise, 0.0)


def stochastic_step(family):
    return flow_grpo_step if family == "flow" else ddim_step
