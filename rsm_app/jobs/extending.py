"""How much longer an ended run is to train: what its new limits are, and what its next worker takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rsm_app.jobs.store import Run
from trainers.coercion import from_mapping
from trainers.run_folder import RunStatus


@dataclass(frozen=True)
class Extension:
    """More time for a run.

    Attributes:
        limits: New values of ``budget_seconds`` and, where it is lifted, of ``max_updates``.
        worker_seconds: Wall-clock seconds of the worker to come.
    """

    limits: Mapping[str, float]
    worker_seconds: float


def longer(run: Run, seconds: float) -> Extension:
    """Return the limits with which an ended run trains for so many seconds more.

    What a run left of its budget when it was stopped, or when it had made its updates, is not made up for.
    One that was cut off still has to do what it was asked for. A limit on updates that was reached is lifted.
    """
    config, status, report = from_mapping(run.settings()), run.status(), run.folder.read_report() or {}
    budget, updates = config.budget_seconds, config.max_updates
    used, reached = _used(run, status, report), updates and status.updates >= updates
    if not any(run.folder.checkpoints.glob("*.safetensors")):
        # Imported: its clock begins anew here, and what there was beside training comes once more.
        budget, used = max(0.0, used - float(report.get("train_seconds", 0.0))), 0.0
    elif reached or _compared(status, report):
        budget = min(budget, used)
    limits = {"budget_seconds": round(budget + seconds, 3), **({"max_updates": 0} if reached else {})}
    return Extension(limits, budget + seconds - min(budget, used))


def _compared(status: RunStatus, report: Mapping) -> bool:
    """Whether a run came to its end; the report of one that did not may be of an earlier end."""
    return bool(report) and status.phase == "done"


def _used(run: Run, status: RunStatus, report: Mapping) -> float:
    """Return the seconds of its budget that a run has used, as far as it could tell."""
    if _compared(status, report):
        return float(report.get("wall_seconds", 0.0))
    lines = run.folder.read_metrics()
    return float(lines[-1].get("seconds", 0.0)) if lines else 0.0
