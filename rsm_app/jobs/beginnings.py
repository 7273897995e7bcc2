"""Which LoRA a run of the app may begin from: that of a run of the same runs directory, and no path of the
machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rsm_app.jobs.store import Run, RunStore
from trainers.adapter_file import checked_start
from trainers.config import RunConfig
from trainers.errors import InputError


def resolved_start(store: RunStore, config: RunConfig, *owners: str) -> RunConfig:
    """Return settings whose ``start_adapter`` is a run's folder instead of its id.

    Args:
        store: The runs directory.
        config: The settings; ``start_adapter`` may be empty, a run's id, or the folder of one.
        owners: Who asks, by every name.

    Raises:
        InputError: There is no such run, it is somebody else's, or its LoRA does not fit the settings.
    """
    if not config.start_adapter:
        return config
    path = Path(config.start_adapter)
    run = store.run(path.name) if str(path) in (path.name, str(store.root / path.name)) else None
    if run is None or not _may_read(run, owners):
        raise InputError("'start_adapter' must be the id of a run of yours, or of one that is shared.")
    config = dataclasses.replace(config, start_adapter=str(run.path))
    checked_start(config)
    return config


def _may_read(run: Run, owners: Sequence[str]) -> bool:
    job = run.job()
    return job.shared or job.owner in ("", *owners)
