"""Settings of real runs that take seconds, and waiting for what other processes do."""

import time

import psutil

from rsm_app.jobs.states import ENDED
from rsm_app.jobs.workers import kill_tree
from trainers.presets import build_config

SMALL = {
    "rollout_steps": 4,
    "branches": "2,2",
    "prompts_per_update": 4,
    "updates_per_rollout": 1,
    "eval_prompts": 4,
    "eval_samples_per_prompt": 2,
    "threads": 1,
    "checkpoint_seconds": 0,
}


def small_config(**changes):
    """Settings of a run that takes seconds."""
    values = {**SMALL, "max_updates": 2, "budget_seconds": 900, **changes}
    return build_config("tiny-flow", "rsm_zeroth_order_flow", "colorfulness", values)


def endless_config(**changes):
    """Settings of a run that goes on until somebody ends it."""
    return small_config(max_updates=0, budget_seconds=3600, **changes)


def wait_for(condition, seconds=240.0, what="the condition"):
    """Return the first true value of a condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come true in {seconds:g} s")


def end_workers(store):
    """Kill what is still at work in a runs directory, by recorded id."""
    for run in store.runs():
        worker, status = run.worker(), run.folder.status()
        if status.live:
            kill_tree(status.pid, status.pid_identity)
        if worker.alive:
            kill_tree(worker.pid, worker.pid_identity)


def gone(process):
    """Whether a process has ended; it may be reaped between the two questions."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def training(run):
    """A condition: the run has finished an update."""
    return lambda: run.folder.read_metrics()


def in_state(run, *states):
    """A condition: the run is in one of some states."""
    return lambda: run.status().state in states


def ended(run):
    """A condition: the run does not wait or work any more."""
    return in_state(run, *ENDED)
