"""From a checkpoint's scheduler to the engine's ``Schedule``: prediction type, shift and spacing are read.

Schedulers of the Euler family keep their states scaled by 1/√ᾱ; in the states of this project their step is
DDIM's, and that of a first-order DPM-Solver++ is Euler's (flow) or DDIM's (diffusion). So a deterministic
rollout of the engine draws the picture that the pipeline itself draws with such a scheduler.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainers.core.schedule import Schedule, diffusion_schedule, flow_schedule
from trainers.models.schedulers import EPSILON, VELOCITY, schedule_problem

if TYPE_CHECKING:
    from trainers.models.base import Conditions


def scheduler_problem(scheduler: Any, kind: str) -> str | None:
    """Return what keeps a loaded scheduler from being read, as a sentence, or None."""
    name = type(scheduler).__name__
    levels = "sigmas" if kind == "flow" else "alphas_cumprod"
    unread = None if hasattr(scheduler, levels) else f"Its scheduler {name} has no noise levels to read."
    return schedule_problem(name, scheduler.config, kind) or unread


def dynamic_shift(scheduler: Any, tokens: int, top: float = 1.15) -> float | None:
    """Return μ, the shift that grows with the number of picture tokens; None for a static shift.

    Args:
        scheduler: The flow's scheduler.
        tokens: Tokens of one picture.
        top: Shift at the longest sequence where the scheduler's config names none.
    """
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return None
    short, long = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", top)
    slope = (high - low) / (long - short)
    return tokens * slope + (low - slope * short)


def flow_levels(
    scheduler: Any, steps: int, sigmas: list[float] | None = None, shift: float | None = None
) -> Schedule:
    """Return the noise levels of a flow's scheduler.

    Args:
        scheduler: The pipeline's own; it is not changed.
        steps: T.
        sigmas: The unshifted levels that the pipeline asks for, or None for the scheduler's own.
        shift: μ of a dynamic shift.
    """
    scheduler = copy.deepcopy(scheduler)
    options = {} if shift is None else {"mu": shift}
    if sigmas is None:
        scheduler.set_timesteps(steps, **options)
    else:
        scheduler.set_timesteps(sigmas=sigmas, **options)
    return flow_schedule(scheduler.sigmas, scheduler.timesteps)


def even_sigmas(steps: int) -> list[float]:
    """Return 1, 1 − 1/T, …, 1/T, which FLUX and its kin hand to their scheduler."""
    return torch.linspace(1.0, 1.0 / steps, steps).tolist()


def diffusion_levels(scheduler: Any, steps: int) -> Schedule:
    """Return ᾱ at the timesteps of a diffusion's scheduler and after the last one.

    Schedulers that visit a timestep twice or lie between two of them (PNDM, Heun) are replaced by DDIM with
    the same noise schedule and spacing.
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    if not _usable(scheduler.timesteps, steps):
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(scheduler.config)
        scheduler.set_timesteps(steps)
    times = scheduler.timesteps.cpu()
    alphas = torch.cat([scheduler.alphas_cumprod.cpu()[times.long()], _final_alpha(scheduler)])
    return diffusion_schedule(alphas, times)


def _usable(times: Tensor, steps: int) -> bool:
    times = times.double().cpu()
    return len(times) == steps and bool((times == times.round()).all()) and bool((times.diff() < 0).all())


def _final_alpha(scheduler: Any) -> Tensor:
    """Return ᾱ (1,) after the last step."""
    if hasattr(scheduler, "final_alpha_cumprod"):
        return torch.as_tensor(scheduler.final_alpha_cumprod).reshape(1).cpu()
    if scheduler.config.get("final_sigmas_type", "zero") == "sigma_min":
        return scheduler.alphas_cumprod[:1].cpu()
    return torch.ones(1)


def row_times(timestep: float | Tensor, latents: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return (B,) the time of each row of latents (B, …), as a whole number where the dtype has no other."""
    if isinstance(timestep, Tensor):
        return timestep.to(latents.device, dtype)
    value = timestep if dtype.is_floating_point else int(timestep)
    return torch.full((len(latents),), value, dtype=dtype, device=latents.device)


def noise_from(scheduler: Any, timestep: float | Tensor, latents: Tensor, output: Tensor) -> Tensor:
    """Return ε̂ (B, …) from what the network predicts: the noise, v = √ᾱ ε − √(1−ᾱ) x0, or x0.

    Source: Salimans and Ho, arXiv 2202.00512, appendix D.
    """
    kind = scheduler.config.get("prediction_type", EPSILON)
    if kind == EPSILON:
        return output
    signal, noise = _signal_and_noise(scheduler, timestep, output)
    latents, output = latents.float(), output.float()
    if kind == VELOCITY:
        return signal * output + noise * latents
    return (latents - signal * output) / noise


def _signal_and_noise(
    scheduler: Any, timestep: float | Tensor, output: Tensor
) -> tuple[float, float] | tuple[Tensor, Tensor]:
    """Return √ᾱ and √(1−ᾱ): of one timestep as numbers, which no device waits for, of (B,) as (B, 1, …)."""
    if not isinstance(timestep, Tensor):
        alpha = float(scheduler.alphas_cumprod[int(timestep)])
        return alpha**0.5, (1.0 - alpha) ** 0.5
    alphas = scheduler.alphas_cumprod.cpu()[timestep.long().cpu()].double()
    alphas = alphas.view(-1, *[1] * (output.ndim - 1))
    signal, noise = torch.stack([alphas.sqrt(), (1.0 - alphas).sqrt()]).to(output.device, torch.float32)
    return signal, noise


def level_by_level(
    predict: Callable[[Tensor, float, Conditions], Tensor], latents: Tensor, times: Tensor, rows: Conditions
) -> Tensor:
    """Return the outputs (B, …) of a model that takes one time at once, for rows of different times.

    Args:
        predict: From latents (M, …), a time and the rows' conditions to outputs (M, …).
        latents: (B, …).
        times: (B,).
        rows: Conditions of B rows.
    """
    values, counts = torch.unique_consecutive(times, return_counts=True)
    parts = torch.arange(len(latents)).split(counts.tolist())
    outputs = [
        predict(latents[part], float(value), rows.select(part))
        for value, part in zip(values, parts, strict=True)
    ]
    return torch.cat(outputs)
