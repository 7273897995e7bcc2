"""How fast this installation is, read from the runs that it has finished."""

from __future__ import annotations

from rsm_app.jobs.devices import CPU
from rsm_app.jobs.index import Row
from rsm_app.jobs.resources import on_gpu
from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import Supervisor
from trainers.coercion import from_mapping
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.preflight import Finished, Speed, measured, reference
from trainers.run_folder import read_json

_LOOKED_AT = 200
_RUNS = 3


def speed(supervisor: Supervisor, config: RunConfig, device: str) -> Speed | None:
    """Return how fast a run will be: as earlier ones here were, else as the reference machine was.

    None when neither tells: the reference machine has no GPU, and it measured the embedded models only.

    Args:
        supervisor: The runs.
        config: The settings of the run to come.
        device: Where it will work; runs on another kind of device tell nothing.
    """
    found: list[Finished] = []
    for row in supervisor.index.rows(("succeeded", "stopped"), limit=_LOOKED_AT):
        if len(found) == _RUNS:
            break
        run = supervisor.store.run(row.id) if _alike(row, config, device) else None
        finished = _finished(run) if run else None
        found += [finished] if finished else []
    return measured(found) or (None if on_gpu(device) else reference(config))


def _alike(row: Row, config: RunConfig, device: str) -> bool:
    settings = row.settings
    same = all(
        settings.get(key) == getattr(config, key) for key in ("model", "estimator", "threads", "dtype")
    )
    return same and on_gpu(row.device or CPU) == on_gpu(device)


def _finished(run: Run) -> Finished | None:
    folder = run.folder
    try:
        config = from_mapping(run.settings())
    except InputError:
        return None
    report, clock = folder.read_report(), read_json(folder.samples / "before.json")
    if not report or not clock or run.status().state != "succeeded":
        return None
    return Finished(config, report, folder.read_metrics(), folder.read_probes(), clock.get("seconds"))
