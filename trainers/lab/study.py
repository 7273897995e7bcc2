"""The default study of ``python -m trainers lab``: estimators, trainings and influence, as plain data."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from types import MappingProxyType
from typing import Any

import torch

from trainers.custom import CUSTOM
from trainers.influence import influence
from trainers.lab import ablations
from trainers.lab.estimate import Problem, study_first_order, study_zeroth_order
from trainers.lab.judging import Outcome
from trainers.lab.mixture import (
    reference_mixture,
    reference_reward,
    reference_schedule,
    step_near,
)
from trainers.lab.training import SETTINGS, STEPS, frontier, lab_config, train_row
from trainers.methods import METHODS

FAMILIES = ("flow", "diffusion")
COUNTS = tuple(2**power for power in range(4, 13, 2))
LEVELS = {"flow": (0.9, 0.6, 0.3), "diffusion": (0.995, 0.9, 0.5)}
DEPTHS = (1, 2, 4, 8)
BETAS = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
STUDY_STEPS = 25
EVALUATIONS = 60_000
Progress = Callable[[str], None]


def noise_level_of(family: str) -> float:
    """Return the usual noise level of a family's stochastic kernel."""
    return 0.7 if family == "flow" else 1.0


def rows_of(family: str) -> list[str]:
    """Return the named rows that a family can train."""
    return [method.name for method in METHODS if family in method.families and method.name != CUSTOM]


def study_estimators(
    family: str, counts: Sequence[int] = COUNTS, steps: int = STUDY_STEPS, seed: int = 0
) -> list[dict[str, Any]]:
    """Measure every estimator at several noise levels; one record per estimator, level and sample count."""
    schedule = reference_schedule(family, steps)
    problem = Problem(reference_mixture(), reference_reward(), schedule)
    found = []
    for level in LEVELS[family]:
        step = step_near(schedule, level)
        qualities = study_first_order(problem, step, DEPTHS, seed=seed)
        for localised in (False, True):
            qualities += study_zeroth_order(
                problem, step, counts, localised, noise_level_of(family), seed=seed
            )
        noise = float(schedule.noise[step])
        found += [{"family": family, "noise": noise, **quality.record()} for quality in qualities]
    return found


def study_training(
    family: str,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
    beta: float = 1.0,
    methods: Sequence[str] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
    workers: int = 1,
    say: Progress = lambda text: None,
) -> list[dict[str, Any]]:
    """Train rows at equal network evaluations and measure the distance to the tilted law.

    Args:
        family: ``flow`` or ``diffusion``.
        evaluations: Network evaluations of each training.
        seed: Seed of every random draw.
        beta: KL strength of the law that is aimed at.
        methods: The rows; all of the family when empty.
        settings: Fields of the config that differ from the laboratory's.
        workers: Processes that train side by side; 1 stays in this one.
        say: Hears one sentence per row.
    """
    jobs = _trainings(family, evaluations, seed, beta, methods, settings)
    return [_told(outcome, seed, settings, say) for outcome in _side_by_side(jobs, workers)]


def study_ablations(
    family: str,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
    methods: Sequence[str] = (),
    workers: int = 1,
    say: Progress = lambda text: None,
) -> list[dict[str, Any]]:
    """Train every row again without each suspected cause of its bias; see ``trainers.lab.ablations``.

    Args:
        family: ``flow`` or ``diffusion``.
        evaluations: Network evaluations of each training.
        seed: Seed of every random draw.
        methods: The rows; all of the family when empty.
        workers: Processes that train side by side.
        say: Hears one sentence per training.
    """
    wanted = ablations.jobs(family, STEPS[family], methods)
    work = []
    for name, _, changed in wanted:
        usual = {"branches": lab_config(name, family).branches, **SETTINGS.get(name, {})}
        config = lab_config(CUSTOM, family, seed, **(usual | changed))
        work.append((train_row, (config, family, evaluations)))
    found = []
    for (name, cause, _), outcome in zip(wanted, _side_by_side(work, workers), strict=True):
        say(f"{family} {name}, unless it {cause.text}: {outcome.share:.2f} of the initial distance left")
        found.append(outcome.record() | {"method": name, "seed": seed, "settings": {}, "without": cause.text})
    return found


def _trainings(family, evaluations, seed, beta=1.0, methods=(), settings=MappingProxyType({})) -> list[tuple]:
    return [
        (train_row, (lab_config(name, family, seed, beta, **settings), family, evaluations, beta))
        for name in methods or rows_of(family)
    ]


def _told(outcome: Outcome, seed: int, settings: Mapping[str, Any], say: Progress) -> dict[str, Any]:
    left = f"{outcome.share:.2f} of the initial distance in {outcome.seconds:.1f} s"
    say(f"{outcome.family} {outcome.method}: {left}")
    return outcome.record() | {"seed": seed, "settings": dict(settings)}


def _side_by_side(jobs: Sequence[tuple], workers: int) -> Iterator:
    """Yield what every (function, arguments) gives, in order, from so many processes of one thread each."""
    if workers == 1:
        yield from map(_do, jobs)
        return
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, fresh, torch.set_num_threads, (1,)) as pool:
        yield from pool.map(_do, jobs)


def _do(job: tuple) -> Any:
    function, arguments = job
    return function(*arguments)


def study_influence(family: str) -> list[dict[str, Any]]:
    """Return h over the schedule for every row, with the laboratory's settings."""
    schedule = reference_schedule(family, STEPS[family])
    noise = schedule.noise[:-1].tolist()
    return [
        {
            "family": family,
            "method": name,
            "noise": noise,
            "influence": influence(METHODS.get(name), lab_config(name, family), schedule),
        }
        for name in rows_of(family)
    ]


def run_study(
    families: Sequence[str] = FAMILIES,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
    workers: int = 1,
    say: Progress = lambda text: None,
) -> dict[str, Any]:
    """Run the whole study and return it as JSON-ready data."""
    started = time.perf_counter()
    jobs = [(study_estimators, (family, COUNTS, STUDY_STEPS, seed)) for family in families]
    jobs += [job for family in families for job in _trainings(family, evaluations, seed)]
    outcomes = _side_by_side(jobs, workers)
    result: dict[str, Any] = {"seed": seed, "frontier": frontier(BETAS), "estimators": []}
    for family in families:
        result["estimators"] += next(outcomes)
        say(f"{family}: estimators")
    result["training"] = [_told(outcome, seed, {}, say) for outcome in outcomes]
    result["influence"] = [row for family in families for row in study_influence(family)]
    return result | {"seconds": time.perf_counter() - started}
