"""A run is a folder: names, atomic writing, tolerant reading and the truth about its state.

The worker process writes, everybody else only reads (one exception: anyone may leave a ``stop`` file).
Every file is replaced atomically or appended line by line, so a reader, a crash or a power cut never
meets half a file. What is left out on purpose: queues, owners and limits, which live in ``rsm_app.jobs``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trainers.bounded_json import SampledLines, trim_lines
from trainers.bounded_json import read_json as read_json
from trainers.bounded_json import read_lines as read_lines
from trainers.errors import FaultError
from trainers.processes import process_alive

PHASES = ("load", "baseline", "train", "evaluate", "save", "done")
STATES = ("new", "running", "stopping", "stopped", "succeeded", "failed", "interrupted")
LIVE_STATES = ("running", "stopping")
HEARTBEAT_SECONDS = 1.0
RESERVE_BYTES = 32 * 1024
MAX_STATUS_BYTES = 64 * 1024
MAX_REASON_BYTES = 1024
KILLED = (
    "The worker ended without a word: it was killed, often because memory ran out, or the machine went down."
)
KILLED_STOPPING = (
    "The worker was asked to stop and ended without a word: one that does not react in time is killed."
)
DAMAGED = "What this run last said of itself, its status.json, is damaged, so how it ended is not known."
_KINDS = {"str": str, "bool": bool, "int": int, "float": (int, float), "dict": dict}
_LARGEST = 2**63  # more than an index, or anything that counts, can hold


@dataclass(frozen=True)
class RunStatus:
    """What a run is doing, as last written by its worker.

    Attributes:
        state: One of ``STATES``.
        phase: One of ``PHASES``.
        updates: Optimiser steps taken.
        images_sampled: Pictures sampled for training so far.
        images_per_second: Training pictures per second of the latest update.
        progress: Share of the whole run that is done, in [0, 1].
        eta_seconds: Expected seconds to the end; None when unknown.
        message: One sentence about the present activity.
        error: One sentence for the person when the run failed or its worker was killed, else empty.
        pid: The worker's process id; 0 when none was started.
        pid_started: The worker's start time (seconds since 1970).
        pid_identity: What tells a reused pid apart, see ``trainers.processes``.
        stop_reason: Why a stop was requested, when that was said.
        started: When the run first started, in seconds since 1970.
        heartbeat: When the worker last wrote this file, in seconds since 1970.
    """

    state: str = "new"
    phase: str = "load"
    updates: int = 0
    images_sampled: int = 0
    images_per_second: float = 0.0
    progress: float = 0.0
    eta_seconds: float | None = None
    message: str = ""
    error: str = ""
    pid: int = 0
    pid_started: float = 0.0
    pid_identity: str = ""
    stop_reason: str = ""
    started: float = 0.0
    heartbeat: float = field(default=0.0)

    @property
    def live(self) -> bool:
        """Whether a worker is at work on this run."""
        return self.state in LIVE_STATES


class RunFolder:
    """Paths and tolerant readers of one run folder."""

    def __init__(self, path: str | os.PathLike):
        """Name the folder; nothing is created or read yet."""
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.status_file = self.path / "status.json"
        self.metrics = self.path / "metrics.jsonl"
        self.probes = self.path / "probes.jsonl"
        self.samples = self.path / "samples"
        self.pairs = self.samples / "pairs.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.adapter = self.path / "adapter"
        self.start = self.path / "start"
        self.report = self.path / "report.json"
        self.notes = self.path / "notes.json"
        self.inputs = self.path / "inputs"
        self.inputs_record = self.inputs / "inputs.json"
        self.machine = self.path / "machine.json"
        self.log = self.path / "log.txt"
        self.stop_file = self.path / "stop"
        self.reserve = self.path / ".reserve"

    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return self.config.is_file()

    def read_config(self, as_written: bool = False) -> dict:
        """Return the settings as asked for; empty when there is no readable config.

        Args:
            as_written: Whether names of files keep bytes that are no UTF-8; the run needs them, and no page,
                database or network takes them.
        """
        return read_json(self.config, as_written=as_written) or {}

    def read_report(self) -> dict | None:
        """Return the before/after report, or None while there is none."""
        return read_json(self.report)

    def read_notes(self) -> dict[str, str]:
        """Return the run's notes by kind, oldest first; see ``trainers.notes``."""
        return {kind: text for kind, text in (read_json(self.notes) or {}).items() if isinstance(text, str)}

    def read_metrics(self) -> list[dict]:
        """Return one mapping of numbers per update, or per some of a very long run; see ``SampledLines``.

        A torn last line is left out.
        """
        return SampledLines(self.metrics).lines()

    def read_probes(self) -> list[dict]:
        """Return one mapping per look at held-out prompts during training; see ``trainers.probes``."""
        return read_lines(self.probes)

    def read_pairs(self) -> list[dict]:
        """Return the before/after pairs; picture paths are relative to the run folder."""
        return read_lines(self.pairs)

    def request_stop(self, reason: str = "") -> None:
        """Ask the worker to evaluate, save and end, and say why.

        Raises:
            FaultError: The disk is full or the folder cannot be written.
        """
        atomic_write(self.stop_file, f"{reason}\n")

    def stop_requested(self) -> bool:
        """Whether somebody asked this run to stop."""
        return self.stop_file.exists()

    def stop_reason(self) -> str:
        """Return why the run was asked to stop; empty when nobody said."""
        try:
            with open(self.stop_file, "rb") as file:
                return file.read(MAX_REASON_BYTES).decode(errors="replace").strip()
        except OSError:
            return ""

    def last_words(self) -> str:
        """Return what is to be said of a worker that ended without a word."""
        if not self.stop_requested():
            return KILLED
        reason = self.stop_reason()
        return f"{reason} The worker was killed before it could end by itself." if reason else KILLED_STOPPING

    def status(self) -> RunStatus:
        """Return the reconciled status.

        A live state without a live worker reads ``interrupted``, and so does a damaged record.
        """
        status = self._read_status()
        while status.live and not process_alive(status.pid, status.pid_started, status.pid_identity):
            later = self._read_status()  # between the two looks it may have said its last word, and ended
            if later == status:
                ended = {"state": "interrupted", "eta_seconds": None, "error": self.last_words()}
                return dataclasses.replace(status, **ended)
            status = later
        if status.state == "running" and self.stop_requested():
            return dataclasses.replace(status, state="stopping")
        return status

    def _read_status(self) -> RunStatus:
        if not self.status_file.exists():
            return RunStatus()
        raw = read_json(self.status_file, MAX_STATUS_BYTES) or {}
        known = fitting(raw, RunStatus)
        status = RunStatus(**known)
        wrong = [name for name in RunStatus.__dataclass_fields__ if name in raw and name not in known]
        if not wrong and raw.get("state") in STATES and status.phase in PHASES:
            return status
        phase = status.phase if status.phase in PHASES else RunStatus.phase
        return dataclasses.replace(status, state="interrupted", phase=phase, eta_seconds=None, error=DAMAGED)

    def write_status(self, status: RunStatus) -> None:
        """Replace the status.

        While the run is live its folder holds a small reserve of the disk, which is given up for the last
        word: a run that ends because the disk is full can still say so.

        Raises:
            FaultError: The disk is full or the folder cannot be written; the old status stays.
        """
        record = asdict(status)
        if status.live:
            write_json(self.status_file, record)
            if not self.reserve.exists():
                atomic_write(self.reserve, os.urandom(RESERVE_BYTES))  # nothing can compress it
            return
        try:
            write_json(self.status_file, record)
        except FaultError:
            self._release()
            write_json(self.status_file, record)
        self._release()

    def _release(self) -> None:
        with contextlib.suppress(OSError):
            self.reserve.unlink(missing_ok=True)


def picture_name(side: str, index: int) -> str:
    """Return the path of one side's picture relative to its run."""
    return f"samples/{side}/{index:05d}.png"


def fitting(raw: dict, kind: type) -> dict:
    """Return the entries of a stored record that have the type that readers rely on.

    Args:
        raw: The record as it was read.
        kind: The dataclass whose fields it has; their types are those of ``_KINDS``, or None.
    """
    fields = dataclasses.fields(kind)
    return {info.name: raw[info.name] for info in fields if info.name in raw and _fits(raw[info.name], info)}


def _fits(value: object, info: dataclasses.Field) -> bool:
    kind, _, empty = str(info.type).partition(" | ")
    if value is None:
        return empty == "None"
    if isinstance(value, bool):  # which would also be a whole number
        return kind == "bool"
    if isinstance(value, int | float) and not abs(value) < _LARGEST:  # nor is anything "not a number"
        return False
    return isinstance(value, _KINDS[kind])


def atomic_write(path: Path, content: str | bytes) -> None:
    """Replace a file so that a reader sees the old or the new content, never a part.

    Raises:
        FaultError: The disk is full or the folder cannot be written; the old file stays.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync(path.parent)  # else the new name may be lost with the power
    except OSError as error:
        with contextlib.suppress(OSError):
            if temporary:
                os.unlink(temporary)
        raise write_fault(path, error) from error


def sync(path: Path) -> None:
    """Let what was written to a file or a folder reach the disk, as far as the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_log(path: Path, text: str) -> None:
    """Append text to a log, whatever it holds; a log that cannot be written ends no run."""
    with contextlib.suppress(OSError), open(path, "a", encoding="utf-8", errors="backslashreplace") as log:
        log.write(text)


def write_json(path: Path, record: dict) -> None:
    """Write an object as an indented JSON file, atomically; errors as in ``atomic_write``."""
    atomic_write(path, json.dumps(record, indent=2) + "\n")


def write_lines(path: Path, records: Iterable[dict]) -> None:
    """Write a JSON-lines file as a whole, atomically; errors as in ``atomic_write``."""
    atomic_write(path, "".join(json.dumps(record) + "\n" for record in records))


def keep_lines(path: Path, keep: Callable[[dict], bool]) -> None:
    """Drop lines of a JSON-lines file, atomically and whatever its size; errors as in ``atomic_write``."""
    part = path.with_name(f".{path.name}.part")
    try:
        trim_lines(path, part, keep)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise write_fault(path, error) from error


def append_line(path: Path, record: dict) -> None:
    """Append one JSON object as a line; a torn line of an earlier crash is closed first.

    Raises:
        FaultError: The disk is full or the file cannot be written.
    """
    try:
        with open(path, "ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise write_fault(path, error) from error


def write_fault(path: Path, error: OSError) -> FaultError:
    """Name the file and the remedy of a failed write; there is only something to resume where a run is."""
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "Free some space" if full else "Let this user write there"
    saved = any((folder / "config.json").is_file() for folder in (path.parent, path.parent.parent))
    then = ", then resume the run; what was saved is intact." if saved else ", then try again."
    return FaultError(
        f"Could not write {path.name} in {path.parent}: {reason}. {remedy} or choose another folder{then}"
    )
