"""Before a run starts: what it will take, in figures and sentences, and whether the reward has any signal."""

from __future__ import annotations

import math
import time
from functools import lru_cache
from html import escape

from rsm_app.jobs import cleaning
from rsm_app.jobs.devices import devices
from rsm_app.jobs.history import speed
from rsm_app.jobs.permission import size_problems
from rsm_app.jobs.resources import Resources, on_gpu, resources
from rsm_app.jobs.supervisor import LIVE, Supervisor
from rsm_app.ui.result import duration, number, reward_title
from trainers.cautions import SMALL_SHARE, cautions
from trainers.config import RunConfig
from trainers.memory_estimate import estimate_memory
from trainers.models import MODELS
from trainers.models.access import access_problems
from trainers.models.configured import configured
from trainers.models.memory import smallest_preset
from trainers.preflight import Estimate, compared_prompts, estimate, group_size
from trainers.prompts import read_prompts
from trainers.rewards import reward_obstacles

MEMORY_MARGIN = 1.1
ASKED_SECONDS = 60.0
SILENT_SHARE = 0.5
UNKNOWN = "not known yet"
UNMEASURED = (
    "How many updates there is time for cannot be told yet: no run with this model and estimator has "
    "finished on such a device here. The first one will tell. It keeps to its time budget, unless that has "
    "no room for a single update."
)
WAITING = '<p class="rsm-facts" role="status" aria-busy="true">{}</p>'
DRAWING = WAITING.format("Loading the base model and drawing a few pictures. This takes some seconds.")


def preflight_html(supervisor: Supervisor, config: RunConfig, own: str | None = None) -> str:
    """Return what a run with these settings will take on this machine, and what speaks against it.

    Args:
        supervisor: The runs.
        config: The settings.
        own: Text of the training prompts when they are not a built-in set.
    """
    machine = resources(config.device)
    known = speed(supervisor, config, machine.device)
    expected = estimate(config, known) if known else None
    free = cleaning.free_mb(supervisor.store)
    ahead = len(supervisor.index.rows(LIVE)) + len(supervisor.index.queue())
    notes = _doubts(config, expected, machine, supervisor)
    rows = read_prompts(own, "The prompts") if own else None
    notes += [text for kind, text in cautions(config, rows, ask=False).items() if kind != "budget"]
    if ahead:
        notes.append(f"{_runs(ahead)} at work or waiting before it, so it may start later or go slower.")
    items = "".join(f"<li>{escape(text)}</li>" for text in notes)
    listed = f'<ul class="rsm-notes" aria-label="Worth knowing">{items}</ul>' if items else ""
    return (
        '<section class="rsm-preflight" aria-label="What this run will take" data-ready="true">'
        f"<h3>What this run will take</h3>{_times(expected) if expected else _longest(config)}"
        f"{_figures(config, expected, machine, free)}{listed}"
        f'<p class="rsm-facts">{escape(expected.source if expected else UNMEASURED)}</p></section>'
    )


def unready_html(problems: list[str]) -> str:
    """Return what is shown while the form cannot be read: what has to change first."""
    items = "".join(f"<li>{escape(text)}</li>" for text in problems)
    return (
        '<section class="rsm-preflight" aria-label="What this run will take" data-ready="false">'
        "<h3>What this run will take</h3><p class='rsm-facts'>It can be told once these are changed:</p>"
        f'<ul class="rsm-notes">{items}</ul></section>'
    )


def _times(expected: Estimate) -> str:
    parts = (
        ("Start and save", expected.start_seconds, "start"),
        ("Before/after comparison", expected.comparison_seconds, "compare"),
        ("Training", expected.training_seconds, "train"),
    )
    total = expected.total_seconds
    bars = "".join(
        f'<i class="rsm-{key}" style="flex-grow:{seconds / total:.3f}"></i>' for _, seconds, key in parts
    )
    words = "".join(
        f'<li><span class="rsm-key rsm-{key}"></span>{title} <b>{duration(seconds)}</b></li>'
        for title, seconds, key in parts
    )
    return (
        f'<p class="rsm-total">About <b>{duration(total)}</b> in all</p>'
        f'<div class="rsm-split" aria-hidden="true">{bars}</div><ul class="rsm-legend">{words}</ul>'
    )


def _longest(config: RunConfig) -> str:
    return f'<p class="rsm-total">At most <b>{duration(config.budget_seconds)}</b>, its time budget</p>'


def _figures(config: RunConfig, expected: Estimate | None, machine: Resources, free_disk: float) -> str:
    size = group_size(config)
    compared = f"{size} pictures" if size else "none: gradients are read"
    pictures = 2 * compared_prompts(config) * config.eval_samples_per_prompt
    device = f"GPU ({machine.device})" if on_gpu(machine.device) else f"CPU, {machine.cores} cores"
    limited = f"at most {config.max_updates}" if config.max_updates else UNKNOWN
    tiles = [
        ("Updates", f"about {expected.updates}" if expected else limited),
        ("Pictures for training", f"about {expected.training_pictures:,}" if expected else UNKNOWN),
        ("Pictures to compare", f"{pictures + (expected.probe_pictures if expected else 0):,}"),
        ("Compared in a group", compared),
        _memory(config, expected, machine),
        ("Device", device if machine.device else "none fits"),
        ("Free disk", _size(free_disk)),
    ]
    if machine.hourly_price is not None:
        tiles.append(("Cost", _cost(machine.hourly_price, config, expected)))
    cells = "".join(f"<div><dt>{title}</dt><dd>{escape(value)}</dd></div>" for title, value in tiles)
    return f'<dl class="rsm-figures">{cells}</dl>'


def _memory(config: RunConfig, expected: Estimate | None, machine: Resources) -> tuple[str, str]:
    """Return the tile of the memory that counts: the GPU's on a GPU, else the machine's."""
    if on_gpu(machine.device):
        needed = smallest_preset(configured(config))
        told = f"{needed} GB or more" if needed else UNKNOWN
        if expected:
            told = f"about {expected.memory_mb * 2**20 / 1e9:.1f} GB"
        return "GPU memory", f"{told}, of {machine.gpu_memory_gb:.0f} GB" if machine.gpu_memory_gb else told
    free = f"{_size(machine.free_memory_mb)} free"
    return "Memory", f"about {_size(expected.memory_mb)} of {free}" if expected else free


def _cost(hourly: float, config: RunConfig, expected: Estimate | None) -> str:
    """Say what a run costs; the time budget is the most that it takes where nothing was measured."""
    if hourly == 0:
        return "free"
    dollars = hourly * (expected.total_seconds if expected else config.budget_seconds) / 3600
    if dollars < 0.01:
        return "less than $0.01"
    return f"about ${dollars:.2f}" if expected else f"at most ${math.ceil(round(100 * dollars, 6)) / 100:.2f}"


def _doubts(
    config: RunConfig, expected: Estimate | None, machine: Resources, supervisor: Supervisor
) -> list[str]:
    """Say what speaks against a run with these settings."""
    found = [*_asked_lately(config.model, int(time.monotonic() // ASKED_SECONDS)), *reward_obstacles(config)]
    found += _doubts_about(config, expected, machine) if expected else []
    limit = supervisor.limits.run_seconds
    if limit and config.budget_seconds > limit:
        found.append(f"A run may take {duration(limit)} here; choose a shorter time budget.")
    found += size_problems(config, devices(), supervisor.limits)
    if not machine.device:
        found.append(f"No device of this machine is {config.device}; choose auto in the advanced settings.")
    low_disk = cleaning.low_disk(supervisor.store, supervisor.limits.free_mb)
    return found + ([low_disk] if low_disk else [])


@lru_cache(maxsize=64)
def _asked_lately(model: str, _period: int) -> tuple[str, ...]:
    """Return what keeps a model from being loaded here; the Hub is asked once in a period.

    The page asks at every change of the form. A start asks anew, so an accepted licence counts at once.
    """
    return tuple(access_problems(MODELS.get(model)))


def _doubts_about(config: RunConfig, expected: Estimate, machine: Resources) -> list[str]:
    found = []
    if not expected.fits and expected.comparison_seconds < SMALL_SHARE * config.budget_seconds:
        found.append(
            f"{duration(config.budget_seconds)} are too short for one update, which is made all the same, so "
            "the run takes longer. Choose a longer time budget."
        )
    elif not expected.fits:
        found.append(
            f"{duration(config.budget_seconds)} leave no time for training beside the comparison: one update "
            "is made all the same, and the run takes longer. Choose a longer time budget or fewer "
            "eval_prompts."
        )
    elif expected.updates < 5 and not config.max_updates:
        found.append("So few updates rarely show a clear change; a longer time budget shows more.")
    memory = max(expected.memory_mb * MEMORY_MARGIN, estimate_memory(config).total)
    if not on_gpu(machine.device) and memory > machine.free_memory_mb:
        found.append(
            "There may be too little memory: end other programs, or choose a smaller micro_batch or "
            "eval_batch."
        )
    return found


def spread_html(found: dict, config: RunConfig) -> str:
    """Say what the rewards of a few base samples mean for training."""
    tone, verdict = _signal(found)
    title = reward_title(config.reward)
    silent, prompts = int(found["silent"]), int(found["prompts"])
    quiet = (
        "In every prompt the pictures got different rewards"
        if not silent
        else f"For {silent} of {prompts} prompts all pictures got the same reward"
    )
    pictures = prompts * int(found["samples"])
    facts = (
        f"“{title}” of {pictures} pictures of the untouched model ({found['samples']} for each of "
        f"{prompts} prompts): mean {number(found['mean'])}; pictures of one prompt differ by "
        f"{number(found['spread'])} (standard deviation), prompts by {number(found['between'])}. {quiet}. "
        f"It took {duration(found['seconds'])}."
    )
    return (
        f'<section class="rsm-spread rsm-tone-{tone}" role="status" aria-label="Reward spread"><p><b>'
        f"{escape(verdict)}</b></p><p>{escape(facts)}</p></section>"
    )


def _signal(found: dict) -> tuple[str, str]:
    """Return a tone and the verdict: does the reward tell pictures of one prompt apart?"""
    silent, prompts = int(found["silent"]), int(found["prompts"])
    if silent == prompts:
        return "bad", (
            "No signal: every picture of a prompt gets the same reward, so there is nothing to learn. Choose "
            "a reward with finer steps, or other prompts."
        )
    if silent > SILENT_SHARE * prompts:
        return "bad", (
            "Weak signal: most prompts teach nothing, because all their pictures get the same reward. A "
            "reward with finer steps, other prompts or more pictures in a group would help."
        )
    if silent:
        return "fine", "The reward has signal, though some prompts teach nothing."
    return "fine", "The reward has signal: it tells pictures of one prompt apart."


def _runs(count: int) -> str:
    return "One run is" if count == 1 else f"{count} runs are"


def _size(mb: float) -> str:
    return f"{mb / 1024:.1f} GiB" if mb >= 1024 else f"{mb:.0f} MiB"
