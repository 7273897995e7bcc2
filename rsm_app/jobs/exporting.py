"""A run to take away: one zip of settings, report, metrics, sample pictures and adapter, or a part of it.

What stays here: logs, checkpoints and the app's own records. Nothing outside the run's folder is read, and
paths of this machine are left out of settings and report.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
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
    with _writing(run, folder / f"{run.id}.zip") as target, _zip(target) as archive:
        for name, record in _records(run):
            archive.writestr(f"{run.id}/{name}", _text(record), zipfile.ZIP_DEFLATED)
        _pack(archive, _files(run), run.path, f"{run.id}/")
    return target


def export_adapter(run: Run, folder: Path) -> Path:
    """Write an ended run's adapter as ``ID-adapter.zip`` into a folder; the rest is as in ``export``.

    Raises:
        InputError: The run waits or works, or it has no adapter.
        FaultError: As in ``export``.
    """
    files = list(_within(run.folder.adapter))
    if not files:
        raise InputError("This run has no adapter.")
    with _writing(run, folder / f"{run.id}-adapter.zip") as target, _zip(target) as archive:
        _pack(archive, files, run.folder.adapter)
    return target


def export_report(run: Run, folder: Path) -> Path:
    """Write an ended run's report as ``ID-report.json`` into a folder; the rest is as in ``export``.

    Raises:
        InputError: The run waits or works, or it has no report.
        FaultError: As in ``export``.
    """
    if not _own(run.folder.report):
        raise InputError("This run has no report.")
    with _writing(run, folder / f"{run.id}-report.json") as target:
        target.write_text(_text(run.folder.read_report() or {}), encoding="utf-8")
    return target


@contextlib.contextmanager
def _writing(run: Run, target: Path) -> Iterator[Path]:
    """Make a file of an ended run; a half-written one is removed."""
    if run.status().state not in ENDED:
        raise InputError("This run has not ended yet. Export it when it has.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target
    except OSError as error:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        raise FaultError(
            f"{target.name} could not be written: {error.strerror or error}. Free some space and try again."
        ) from error


def _zip(target: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(target, "w", strict_timestamps=False)


def _pack(archive: zipfile.ZipFile, files: Iterable[Path], root: Path, prefix: str = "") -> None:
    for path in files:
        kind = zipfile.ZIP_STORED if path.suffix.lower() in _PACKED else zipfile.ZIP_DEFLATED
        archive.write(path, f"{prefix}{path.relative_to(root)}", kind)


def _files(run: Run) -> Iterator[Path]:
    for path in (run.prompts, run.folder.metrics):
        if _own(path):
            yield path
    for name in _FOLDERS:
        yield from _within(run.path / name)


def _within(folder: Path) -> Iterator[Path]:
    """Yield a folder's own files, however deep; none when the folder itself is a link to elsewhere."""
    if folder.is_symlink():
        return
    for place, _, names in os.walk(folder):
        yield from (path for file in sorted(names) if _own(path := Path(place, file)))


def _own(path: Path) -> bool:
    """Whether a path is a finished file of the run: no link to elsewhere, nothing half written."""
    return path.is_file() and not path.is_symlink() and not path.name.startswith(".")


def _records(run: Run) -> Iterator[tuple[str, dict]]:
    """Yield what may hold paths of this machine, which is written anew without them."""
    yield "config.json", run.settings()
    if _own(run.folder.report) and (report := run.folder.read_report()) is not None:
        yield "report.json", report


def _text(record: dict) -> str:
    return json.dumps(without_folders(record), indent=2) + "\n"


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
