"""The stochastic kernels of a run's sampling steps, and the constants that stand for all of them."""

from __future__ import annotations

from dataclasses import replace

from trainers.config import RunConfig
from trainers.core.schedule import Schedule
from trainers.core.transition import Coefficients
from trainers.core.weights import ScheduleMeans, schedule_means
from trainers.method import Method
from trainers.samplers.kernels import stochastic_kernel


def kernels_of(schedule: Schedule, config: RunConfig, name: str = "") -> list[Coefficients]:
    """Return the stochastic kernel of each step, the settings' own or the one called ``name``."""
    kernel = stochastic_kernel(schedule.family, name or config.kernel)
    return [kernel(schedule, step, config.noise_level) for step in range(schedule.steps)]


def means_of(schedule: Schedule, config: RunConfig) -> ScheduleMeans:
    """Return the schedule's constants that the settings ask for."""
    usual = kernels_of(schedule, config, "auto")
    means = schedule_means(kernels_of(schedule, config), schedule.intervals().tolist(), usual)
    return replace(means, rate=config.interval_weight) if config.interval_weight > 0 else means


def stochastic_steps(method: Method, config: RunConfig, schedule: Schedule) -> int:
    """Return how many steps of a stochastic trajectory a row may train, from the first one on.

    The last one only counts where it injects noise, the row trains it and the settings do not skip it.
    """
    last = schedule.steps - 1
    noisy = kernels_of(schedule, config)[last].std > 0
    return last + (noisy and method.last_step and config.last_step != "skip")


def stratified_steps(steps: int) -> tuple[int, int]:
    """Return (first, end) of the steps whose levels AWM draws: not the first one, nor the last tenth.

    Source: the authors' program of AWM (arXiv 2509.25050), ``discrete_wo_init`` times.
    """
    return 1, max(2, int(0.9 * steps))
