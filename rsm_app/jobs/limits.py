"""What a run and its owner may take, from environment variables; README lists them.

A limit of 0 is none. On a Space, where visitors share one machine, the defaults are stricter. Values are read
once, when the app starts, and all wrong ones are reported together.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from rsm_app.jobs.places import on_space
from trainers.errors import InputError


def _limit(default: float, variable: str, help: str, space: float | None = None):
    shared = default if space is None else space
    return dataclasses.field(default=default, metadata={"variable": variable, "help": help, "space": shared})


@dataclass(frozen=True)
class Limits:
    """Every limit; each field's metadata names its variable and says what it does."""

    owner_queued: float = _limit(
        10, "RSM_MAX_QUEUED_PER_OWNER", "Runs that one owner may have waiting in the queue.", space=3
    )
    owner_running: float = _limit(
        0, "RSM_MAX_RUNNING_PER_OWNER", "Runs of one owner at work at the same time.", space=1
    )
    run_seconds: float = _limit(
        86400,
        "RSM_MAX_RUN_SECONDS",
        "Wall-clock seconds of one worker; longer budgets are refused.",
        space=1800,
    )
    owner_kept: float = _limit(
        0,
        "RSM_MAX_KEPT_PER_OWNER",
        "Ended runs of one owner that are kept; beyond it their oldest unpinned ones are deleted.",
        space=50,
    )
    owner_pinned: float = _limit(0, "RSM_MAX_PINNED_PER_OWNER", "Runs that one owner may pin.", space=5)
    owner_disk_mb: float = _limit(
        0,
        "RSM_DISK_PER_OWNER_MB",
        "MB of one owner's runs; beyond it their own oldest unpinned ones are deleted.",
        space=1000,
    )
    disk_mb: float = _limit(
        0,
        "RSM_DISK_QUOTA_MB",
        "MB of all runs; beyond it the oldest unpinned ones of whoever uses most are deleted.",
        space=5000,
    )
    owner_files_mb: float = _limit(
        0,
        "RSM_FILES_PER_OWNER_MB",
        "MB of one owner's uploads and exports; beyond it their own oldest ones are deleted.",
        space=300,
    )
    files_mb: float = _limit(
        0,
        "RSM_FILES_MB",
        "MB of all uploads and exports; beyond it the oldest of whoever uses most are deleted.",
        space=1000,
    )
    free_mb: float = _limit(
        500,
        "RSM_MIN_FREE_MB",
        "MB that stay free on the disk: no run starts below, running ones are stopped.",
    )
    import_mb: float = _limit(
        4096,
        "RSM_MAX_IMPORT_MB",
        "MB of one LoRA, with its pictures and records, that may be brought from the Hub.",
        space=512,
    )
    owner_rate: float = _limit(
        0,
        "RSM_MAX_REQUESTS_PER_SECOND",
        "Requests of one owner a second, on average; scripts and styles of the page do not count.",
        space=150,
    )
    owner_requests: float = _limit(
        0, "RSM_MAX_REQUESTS_PER_OWNER", "Requests of one owner that are open at the same time.", space=500
    )
    owner_events: float = _limit(
        0, "RSM_MAX_EVENTS_PER_OWNER", "Events of one owner's pages that wait to be answered.", space=200
    )
    owner_sessions: float = _limit(
        0, "RSM_MAX_SESSIONS_PER_OWNER", "Open pages of one owner that the app remembers.", space=300
    )
    run_memory_mb: float = _limit(
        0,
        "RSM_MAX_RUN_MEMORY_MB",
        "MB of memory of one worker on the CPU; settings that ask for more are refused.",
        space=6000,
    )
    free_memory_mb: float = _limit(
        0,
        "RSM_MIN_FREE_MEMORY_MB",
        "MB of the machine's memory that stay free: below, the largest worker is ended.",
        space=500,
    )
    batch: float = _limit(0, "RSM_MAX_BATCH", "Largest micro_batch and eval_batch.", space=512)
    resolution: float = _limit(0, "RSM_MAX_RESOLUTION", "Largest side of an image, in pixels.", space=1024)
    rollout_images: float = _limit(0, "RSM_MAX_ROLLOUT_IMAGES", "Images of one rollout.", space=8192)
    compared_images: float = _limit(
        0, "RSM_MAX_COMPARED_IMAGES", "Images of each side of a comparison.", space=4096
    )
    lora_rank: float = _limit(0, "RSM_MAX_LORA_RANK", "Largest rank of a LoRA.", space=128)
    lookahead: float = _limit(0, "RSM_MAX_LOOKAHEAD", "Most lookahead_steps.", space=8)
    replay: float = _limit(0, "RSM_MAX_REPLAY", "Largest replay_size.", space=10000)
    own_prompts: float = _limit(0, "RSM_MAX_OWN_PROMPTS", "Own training prompts of one run.", space=5000)
    stop_seconds: float = _limit(
        30, "RSM_STOP_GRACE_SECONDS", "Seconds for a stop beyond what the worker says it needs."
    )

    def within(self, seconds: float) -> float:
        """Return a time budget, or the longest that is allowed where that is shorter."""
        return min(seconds, self.run_seconds) if self.run_seconds else seconds


def read_limits(environment: Mapping[str, str] | None = None) -> Limits:
    """Return the limits that the environment sets, defaults for the others, those of a Space on one.

    Args:
        environment: Variables by name; this process's own when None.

    Raises:
        InputError: With a sentence for every value that is not a number of 0 or more.
    """
    environment = os.environ if environment is None else environment
    fields = dataclasses.fields(Limits)
    found, values = [], {field.name: field.metadata["space"] for field in fields if on_space(environment)}
    for field in fields:
        variable = field.metadata["variable"]
        text = environment.get(variable, "").strip()
        if not text:
            continue
        number = _number(text)
        if number is None:
            found.append(f"{variable} must be a number of 0 or more (0 sets no limit), not '{text}'.")
        else:
            values[field.name] = number
    if found:
        raise InputError(*found)
    return Limits(**values)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
