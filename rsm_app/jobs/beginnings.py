"""Which LoRA a run of the app may begin from: that of a run of the same runs directory, and no path of the
machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rsm_app.jobs.store import Run, RunStore
from trainers.adapter_file import WEIGHTS, find_adapter
from trainers.adapter_start import checked_start
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.run_folder import atomic_write


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


def keep_start(run: Run, config: RunConfig) -> None:
    """Copy what a new run begins from into its folder, for the other run may be gone when its turn comes.

    Raises:
        InputError: The other run is gone already.
        FaultError: The disk is full.
    """
    if config.start_adapter:
        try:
            weights = find_adapter(config.start_adapter).read_bytes()
        except OSError as error:
            raise InputError("The LoRA that 'start_adapter' names cannot be read any more.") from error
        atomic_write(run.folder.start / WEIGHTS, weights)


def _may_read(run: Run, owners: Sequence[str]) -> bool:
    job = run.job()
    return job.shared or job.owner in ("", *owners)
