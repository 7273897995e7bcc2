"""A run as one zip to take away: settings, report, metrics, sample pictures and adapter.

What stays here: logs, checkpoints and the app's own records. Nothing outside the run's folder is read, and
paths of this machine are left out of settings and report.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from rsm_app.jobs.states import ENDED
from rsm_app.jobs.store import Run
from trainers.errors import FaultError, InputError
from trainers.rewards.own import own_name, without_places

_FOLDERS = ("samples", "adapter")
_PACKED = (".png", ".webp", ".jpg", ".safetensors")  # compressing these again only takes time


def export(run: Run, folder: Path) -> Path:
    """Write an ended run as ``ID.zip`` into a folder and return the file.

    Args:
        run: The run.
        folder: Where the zip goes; made if it is missing.

    Raises:
        InputError: The run waits or works, so its files still change.
        FaultError: The disk is full, or the run's files cannot be read.
    """
    if run.status().state not in ENDED:
        raise InputError("This run has not ended yet. Export it when it has.")
    target = folder / f"{run.id}.zip"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w", strict_timestamps=False) as archive:
            for name, record in _records(run):
                text = json.dumps(without_folders(record), indent=2) + "\n"
                archive.writestr(f"{run.id}/{name}", text, zipfile.ZIP_DEFLATED)
            for path in _files(run):
                packed = path.suffix.lower() in _PACKED
                kind = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
                archive.write(path, f"{run.id}/{path.relative_to(run.path)}", kind)
    except OSError as error:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        raise FaultError(
            f"The zip could not be written: {error.strerror or error}. Free some space and try again."
        ) from error
    return target


def _files(run: Run) -> Iterator[Path]:
    for path in (run.prompts, run.folder.metrics):
        if _own(path):
            yield path
    for name in _FOLDERS:
        if (run.path / name).is_symlink():
            continue
        for place, _, names in os.walk(run.path / name):
            yield from (path for file in sorted(names) if _own(path := Path(place, file)))


def _own(path: Path) -> bool:
    """Whether a path is a finished file of the run: no link to elsewhere, nothing half written."""
    return path.is_file() and not path.is_symlink() and not path.name.startswith(".")


def _records(run: Run) -> Iterator[tuple[str, dict]]:
    """Yield what may hold paths of this machine, which is written anew without them."""
    yield "config.json", run.settings()
    if _own(run.folder.report) and (report := run.folder.read_report()) is not None:
        yield "report.json", report


def without_folders(value):
    """Return a record with every path of this machine cut down to its last part, however deep it lies: in
    values, in keys, and in each part of a mixture of rewards.
    """
    if isinstance(value, dict):
        return {without_folders(key): without_folders(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_folders(part) for part in value]
    if not isinstance(value, str):
        return value
    if any(map(own_name, value.split(","))):
        return without_places(value)
    return Path(value).name if os.path.isabs(value) or value.startswith("~") else value
