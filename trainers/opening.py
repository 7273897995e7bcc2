"""Open a run folder for a session: a new one, one that ended early, or a finished one that gets more time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from trainers.adapter_file import PEFT_CONFIG, WEIGHTS
from trainers.adapter_start import checked_start
from trainers.coercion import from_mapping
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError
from trainers.processes import process_age
from trainers.rewards.remote import endpoint_problems
from trainers.run_folder import RunFolder, atomic_write
from trainers.run_inputs import input_problems, keep_inputs


def start(path: str | os.PathLike, config: RunConfig) -> RunFolder:
    """Create the folder of a new run.

    A LoRA that already lies in the run's ``start`` folder is what training begins from: whoever queued the
    run copied it there when it was asked for.

    Raises:
        InputError: The folder already holds another run or other files, or the LoRA that training is to begin
            from is missing or does not fit.
        FaultError: The folder cannot be written.
    """
    folder = RunFolder(path)
    beginning = _beginning(folder, config) if config.start_adapter else None
    check_new(folder.path)
    if beginning is not None:  # a copy, so that the run can be resumed whatever becomes of the original
        atomic_write(folder.start / WEIGHTS, beginning.read_bytes())
        if (settings := beginning.parent / PEFT_CONFIG).is_file():  # says what the file itself may not
            atomic_write(folder.start / PEFT_CONFIG, settings.read_bytes())
    atomic_write(folder.config, config.to_json())
    keep_inputs(folder, config)
    return folder


def check_new(path: Path) -> None:
    """Refuse a path at which no run's folder can be made; makes nothing.

    Raises:
        InputError: It holds a run already, or as in ``check_place``.
    """
    if RunFolder(path).exists():
        raise InputError(
            f"{path} already holds a run. Choose another --out, or continue it with: "
            f"python -m trainers resume {path}"
        )
    check_place(path)


def check_place(path: Path) -> None:
    """Refuse a path at which no folder can be made.

    Raises:
        InputError: It is a file or lies below one, or this user may not write there.
    """
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError(f"{path} is a file; --out needs a folder.")
    above = next(folder for folder in (path, *path.absolute().parents) if os.path.exists(folder))
    if not above.is_dir():
        raise InputError(f"{path} lies below the file {above}; choose another --out.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(
            f"This user may not write in {above}, so {path} cannot be made; choose another --out."
        )


def _beginning(folder: RunFolder, config: RunConfig) -> Path:
    kept = (folder.start / WEIGHTS).is_file()
    return checked_start(dataclasses.replace(config, start_adapter=str(folder.start)) if kept else config)


def existing(path: str | os.PathLike) -> RunFolder:
    """Return the folder of a run that is there.

    Raises:
        InputError: There is no run.
    """
    folder = RunFolder(path)
    if not folder.exists():
        raise InputError(f"{folder.path} holds no run (it has no config.json).")
    return folder


def reopen(
    path: str | os.PathLike, limits: Mapping[str, float] | None = None, keep_stop: bool = False
) -> tuple[RunFolder, RunConfig]:
    """Open a run that ended early, or a finished one that is given more time.

    Args:
        path: The run folder.
        limits: New values of ``budget_seconds`` and ``max_updates``; they replace those in ``config.json``,
            so giving the same ones twice changes nothing.
        keep_stop: Whether a stop request from before this process began is meant for this session too.

    Raises:
        InputError: There is no run, it is still at work, it is finished and gets no more time, it names an
            endpoint where that is refused, or something that its numbers depend on has changed.
        FaultError: Its settings are damaged.
    """
    folder = existing(path)
    values = folder.read_config(as_written=True)
    if not values:
        raise FaultError(f"The settings of this run, {folder.config}, are damaged and cannot be read.")
    status = folder.status()
    # A status of this very process is of an earlier chunk that could not write its end.
    if status.live and status.pid != os.getpid():
        raise InputError(f"The run in {folder.path} is still at work (process {status.pid}).")
    if status.state == "succeeded" and not limits:
        raise InputError(
            f"The run in {folder.path} is already finished; its results are in report.json. To train longer, "
            "raise --budget-seconds."
        )
    config = from_mapping(values | dict(limits or {}))
    if found := endpoint_problems(config) + input_problems(folder, config):
        raise InputError(*found)
    keep_inputs(folder, config)
    if limits:
        atomic_write(folder.config, config.to_json())
    if not keep_stop:
        _forget_old_stop(folder)
    _sweep(folder)
    return folder, config


def _forget_old_stop(folder: RunFolder) -> None:
    """Remove a request that an earlier worker did not live to obey, but none meant for this process."""
    began = time.time() - process_age()
    with contextlib.suppress(OSError):
        if folder.stop_file.stat().st_mtime < began:
            folder.stop_file.unlink()


def _sweep(folder: RunFolder) -> None:
    """Remove the half-written files of a killed worker; not those of the app, which may be writing now."""
    own = (
        *(folder.config, folder.status_file, folder.machine),
        *(folder.metrics, folder.report, folder.reserve),
    )
    litter = [part for path in own for part in path.parent.glob(f".{path.name}.*")]
    litter += [part for place in (folder.samples, folder.checkpoints) for part in place.rglob(".*")]
    for part in litter:
        with contextlib.suppress(OSError):
            part.unlink()
    for staging in folder.path.glob(".adapter-*"):
        shutil.rmtree(staging, ignore_errors=True)
