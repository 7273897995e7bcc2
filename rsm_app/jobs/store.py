"""Where runs live: ids, the runs directory, and what a run's folder says about its state.

The worker's files are read through ``trainers.run_folder``. Beside them the app keeps three of its own:
``request.json`` (the settings asked for), ``worker.json`` (which process was started) and ``worker.txt``
(that process's output). Nothing is held in memory, so a restart, a second process or a second tab see
the same runs.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from trainers.processes import process_alive
from trainers.run_folder import RunFolder, RunStatus, read_json

ROOT = Path(__file__).resolve().parents[2]
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LOG_TAIL_BYTES = 8192


def valid_run_id(run_id: object) -> bool:
    """Whether text can name a run: letters, digits, ``-`` and ``_`` only, so never a path."""
    return isinstance(run_id, str) and _RUN_ID.fullmatch(run_id) is not None


def new_run_id() -> str:
    """Return an id that sorts by time and that two processes never choose alike."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class Worker:
    """The process that was last started for a run, as recorded by whoever started it.

    Attributes:
        pid: Its process id; 0 when none was started.
        pid_started: Its start time in seconds since 1970.
        exit_code: What it returned; negative for a signal, None while unknown.
    """

    pid: int = 0
    pid_started: float = 0.0
    exit_code: int | None = None

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return process_alive(self.pid, self.pid_started)


class Run:
    """One run folder as the app sees it."""

    def __init__(self, path: Path):
        """Name the run; nothing is created or read yet."""
        self.id = path.name
        self.path = path
        self.folder = RunFolder(path)
        self.request = path / "request.json"
        self.prompts = path / "prompts.txt"
        self.worker_file = path / "worker.json"
        self.worker_log = path / "worker.txt"

    def exists(self) -> bool:
        """Whether the folder holds a run, started or just asked for."""
        return self.request.is_file() or self.folder.exists()

    def settings(self) -> dict:
        """Return the settings of the run: as the worker recorded them, else as they were asked for."""
        return self.folder.read_config() or read_json(self.request) or {}

    def worker(self) -> Worker:
        """Return the recorded worker process."""
        raw = read_json(self.worker_file) or {}
        known = {key: raw[key] for key in Worker.__dataclass_fields__ if key in raw}
        return Worker(**known)

    def status(self) -> RunStatus:
        """Return the reconciled status, the moments before and after the worker's own words included.

        A worker that was started but has not written yet reads ``running`` in phase ``load``; one that
        ended without a word reads ``failed`` (its first start) or ``interrupted`` (a resume).
        """
        status = self.folder.status()
        worker = self.worker()
        if status.live or not worker.pid or self._has_spoken(status, worker):
            return status
        if worker.alive:
            return dataclasses.replace(
                status, state="running", phase="load", message="Starting the worker.", error=""
            )
        return dataclasses.replace(status, state="failed", eta_seconds=None, error=self._last_words(worker))

    def _has_spoken(self, status: RunStatus, worker: Worker) -> bool:
        return status.pid == worker.pid and abs(status.pid_started - worker.pid_started) < 2.0

    def _last_words(self, worker: Worker) -> str:
        how = {None: "", -9: " (it was killed, often because memory ran out)"}.get(
            worker.exit_code, f" (exit code {worker.exit_code})"
        )
        words = " ".join(self.log_tail(3))
        said = f" Its last words: {words}" if words else " It left no message."
        return f"The worker ended before it could report{how}.{said}"

    def log_tail(self, lines: int) -> list[str]:
        """Return the last lines the worker printed or logged, tracebacks cut down to their message."""
        for path in (self.worker_log, self.folder.log):
            told = _without_traceback(_tail(path))
            if told:
                return told[-lines:]
        return []


class RunStore:
    """The runs directory."""

    def __init__(self, root: str | os.PathLike):
        """Name the directory; it is created when the first run is."""
        self.root = Path(root).resolve()

    def run(self, run_id: object) -> Run | None:
        """Return an existing run, or None for anything that is not the id of one."""
        if not valid_run_id(run_id):
            return None
        path = self.root / str(run_id)
        run = Run(path)
        return run if not path.is_symlink() and run.exists() else None

    def create(self) -> Run:
        """Make the folder of a new run."""
        path = self.root / new_run_id()
        path.mkdir(parents=True)
        return Run(path)

    def runs(self) -> list[Run]:
        """Return every run, newest first."""
        try:
            names = [entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []
        found = [run for name in sorted(names, reverse=True) if (run := self.run(name))]
        return found

    def live(self) -> Run | None:
        """Return the run that a worker is at work on, if any."""
        return next((run for run in self.runs() if run.status().live), None)


def default_store() -> RunStore:
    """Return the runs directory of this installation: ``RSM_RUNS_DIR``, else ``runs/`` beside the app."""
    return RunStore(os.environ.get("RSM_RUNS_DIR") or ROOT / "runs")


def _tail(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()]


def _without_traceback(lines: list[str]) -> list[str]:
    told, inside = [], False
    for line in lines:
        if line.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and line.startswith((" ", "\t")):
            continue
        else:
            inside = False
            told.append(line)
    return told
