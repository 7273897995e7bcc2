"""A run's numbers in an experiment tracker: ``export-metrics`` copies them there when asked.

A copy, not a live connection: the run folder stays the truth, training never waits for a tracker, and the
tracker's package is imported only here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from trainers.bounded_json import iter_lines
from trainers.errors import FaultError, InputError
from trainers.opening import existing
from trainers.paths import path_of
from trainers.run_folder import RunFolder
from trainers.terminal import say

PROJECT = "rsm-studio"
_PAIRED = ("mean_gain", "z", "win_rate")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Declare the words of ``export-metrics``."""
    parser.add_argument("run", type=path_of, help="the run folder")
    parser.add_argument("--to", choices=tuple(TRACKERS), required=True, help="the tracker")
    parser.add_argument("--project", default=PROJECT, help="the tracker's project (default: %(default)s)")
    parser.set_defaults(command=_export)


def _export(options) -> int:
    folder = existing(options.run)
    count = export(folder, options.to, options.project)
    say(f"Copied {count} steps of {folder.path.resolve().name} to the project {options.project}.")
    return 0


def export(folder: RunFolder, tracker: str, project: str = PROJECT) -> int:
    """Copy a run's metrics, held-out looks and final comparison to a tracker.

    Args:
        folder: The run, at work or ended.
        tracker: A key of ``TRACKERS``.
        project: The tracker's project.

    Returns:
        How many steps were copied.

    Raises:
        InputError: The run has no metrics yet, or the tracker is not installed or refuses the project.
        FaultError: The tracker failed.
    """
    steps = history(folder)
    if not steps:
        raise InputError(f"The run in {folder.path} has no metrics yet; there is nothing to copy.")
    TRACKERS[tracker](project, folder.path.resolve().name, _settings(folder), steps)
    return len(steps)


def history(folder: RunFolder) -> dict[int, dict[str, float]]:
    """Return a run's numbers by update, in order.

    Names are those of docs/METRICS.md after ``train/``, ``heldout/`` or ``paired/``, where they are from.
    Update 0 is the base model; the final comparison counts as the last update's.
    """
    steps: dict[int, dict[str, float]] = {}
    for look in folder.read_probes():
        mean = sum(look["reward"]) / len(look["reward"])
        numbers = {"heldout/reward": mean, "heldout/diversity": look["diversity"]}
        steps.setdefault(int(look["step"]), {}).update(numbers)
    for line in iter_lines(folder.metrics):
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
        steps.setdefault(int(numbers.pop("step")), {}).update({f"train/{k}": v for k, v in numbers.items()})
    report = folder.read_report()
    if report and steps:
        paired = {f"paired/{name}": report["paired"][name] for name in _PAIRED}
        steps.setdefault(int(report["updates"]), {}).update(paired)
    return dict(sorted(steps.items()))


def _settings(folder: RunFolder) -> dict:
    """Return the run's settings without paths of this machine."""
    return {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in folder.read_config().items()
    }


def _to_trackio(project: str, name: str, settings: dict, steps: dict[int, dict[str, float]]) -> None:
    try:
        import trackio
    except ImportError as error:
        raise InputError(
            "The package 'trackio' is not installed; install it with: pip install trackio"
        ) from error
    try:
        run = trackio.init(
            project=project, name=name, config=settings, embed=False, auto_log_cpu=False, auto_log_gpu=False
        )
        for step, numbers in steps.items():
            run.log(numbers, step=step)
        trackio.finish()
    except ValueError as error:
        raise InputError(f"trackio refuses: {error}") from error
    except Exception as error:  # a tracker's failures have no common type
        raise FaultError(f"trackio could not take the metrics: {error}") from error


TRACKERS: dict[str, Callable[[str, str, dict, dict[int, dict[str, float]]], None]] = {"trackio": _to_trackio}
