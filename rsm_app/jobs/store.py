"""Where runs live: ids, the runs directory, and the files that the app keeps in a run's folder.

The worker's files are read through ``trainers.run_folder``. Beside them the app keeps ``request.json`` (the
settings asked for), ``job.json`` (owner, place in the queue, pin), ``worker.json`` (the process started) and
``worker.txt`` (that process's output). They are the truth; ``index`` only makes it quick to read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from rsm_app.jobs.places import ROOT as ROOT
from rsm_app.jobs.places import runs_directory
from rsm_app.jobs.records import (
    UNREADABLE_JOB,
    UNREADABLE_WORKER,
    DamagedRecord,
    Job,
    Worker,
    absent,
    read_job,
    read_worker,
)
from rsm_app.jobs.states import reconcile, resumable
from trainers.errors import BusyError, FaultError, InputError
from trainers.failures import without_code_advice
from trainers.run_folder import RunFolder, RunStatus, read_json, write_json

LOG_LINES = 40
ORIGIN = "imported.json"  # says where a run that was brought from the Hub came from
_LAST_WORDS = 12
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LOG_TAIL_BYTES = 65536
_logged: set[tuple[Path, str]] = set()
Record = TypeVar("Record", Job, Worker)


def valid_run_id(run_id: object) -> bool:
    """Whether text can name a run: letters, digits, ``-`` and ``_`` only, so never a path."""
    return isinstance(run_id, str) and _RUN_ID.fullmatch(run_id) is not None


def new_run_id() -> str:
    """Return an id that sorts by time (UTC, to 15 µs) and that two processes never choose alike."""
    now = time.time()
    within = int(now % 1 * 0x10000)
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{within:04x}{secrets.token_hex(2)}"


class Run:
    """One run folder as the app sees it."""

    def __init__(self, path: Path):
        """Name the run; nothing is created or read yet."""
        self.id = path.name
        self.path = path
        self.folder = RunFolder(path)
        self.request = path / "request.json"
        self.prompts = path / "prompts.txt"
        self.job_file = path / "job.json"
        self.worker_file = path / "worker.json"
        self.worker_log = path / "worker.txt"

    def exists(self) -> bool:
        """Whether the folder holds a run, started or just asked for."""
        return self.request.is_file() or self.folder.exists()

    def settings(self) -> dict:
        """Return the settings of the run: as the worker recorded them, else as they were asked for."""
        return self.folder.read_config() or read_json(self.request) or {}

    def certain_settings(self) -> dict:
        """Return the settings that a worker would work by.

        Raises:
            InputError: They cannot be read, so nothing is known of what they allow or ask for.
        """
        file = self.request if absent(self.folder.config) else self.folder.config
        settings = read_json(file)
        if settings is None:
            raise InputError(
                f"The settings of this run are damaged: {file.name} cannot be read. Begin a new run instead."
            )
        return settings

    def job(self) -> Job:
        """Return what the app knows of the run; ``UNREADABLE_JOB`` unless that is certain.

        Nothing is known of a run that was made in a shell: it has none of the files that the app keeps.
        """
        try:
            job = read_job(self.job_file)
        except DamagedRecord as error:
            return self._unreadable(self.job_file, UNREADABLE_JOB, str(error))
        if job is None and all(map(absent, (self.request, self.worker_file, self.worker_log))):
            return Job(shell=True)
        return job or self._unreadable(self.job_file, UNREADABLE_JOB, "it is missing")

    def change_job(self, **changes) -> Job:
        """Change the app's record; only under the store's lock.

        Raises:
            FaultError: The disk is full or the folder cannot be written, or the record cannot be read: what
                it said would be lost.
        """
        job = self.job()
        if job.damaged:
            raise FaultError(
                f"{self.job_file.name} of run {self.id} cannot be read, so nothing was changed. Try again; "
                "if it stays so, whoever runs this app has to restore that file."
            )
        job = dataclasses.replace(job, **changes)
        job = dataclasses.replace(job, shell=not job.owner)
        write_json(self.job_file, dataclasses.asdict(job))
        return job

    def worker(self) -> Worker:
        """Return the recorded worker process; ``UNREADABLE_WORKER`` unless that is certain."""
        try:
            return read_worker(self.worker_file) or Worker()
        except DamagedRecord as error:
            return self._unreadable(self.worker_file, UNREADABLE_WORKER, str(error))

    def _unreadable(self, file: Path, record: Record, why: str) -> Record:
        """Return what stands for a record that cannot be read, and say so in the log, once each."""
        if (file, why) not in _logged:
            _logged.add((file, why))
            until = "no worker is started" if isinstance(record, Worker) else "the run is nobody's"
            logging.getLogger(__name__).warning("%s cannot be read: %s. Until it can, %s.", file, why, until)
        return record

    def write_worker(self, worker: Worker) -> None:
        """Record the worker process; errors as in ``change_job``."""
        write_json(self.worker_file, dataclasses.asdict(worker))

    def note_end(self, worker: Worker, code: int) -> None:
        """Record what a worker returned, unless another one was started since; takes the store's lock.

        One that met another process at work in the folder is no more the run's worker: that one may be.

        Raises:
            FaultError: The disk is full or the folder cannot be written.
        """
        if not self.exists():
            return
        with RunStore(self.path.parent).lock():
            recorded = self.worker()
            newer = recorded.ticket != worker.ticket or recorded.pid not in (0, worker.pid)
            if self.exists() and not newer:
                known = {"pid": 0} if code == BusyError.exit_code else {"exit_code": code}
                self.write_worker(dataclasses.replace(worker, **known))

    def status(self) -> RunStatus:
        """Return what the run is doing, reconciled with the processes that exist; see ``states``."""
        worker = self.worker()
        return reconcile(self.folder, self.job(), worker, lambda: self._last_words(worker))

    def log_size(self) -> int:
        """Return how many bytes worker processes have printed so far."""
        try:
            return self.worker_log.stat().st_size
        except OSError:
            return 0

    def _last_words(self, worker: Worker) -> list[str]:
        words = _without_traceback(_tail(self.worker_log, worker.log_start))[-_LAST_WORDS:]
        return list(map(without_code_advice, words))

    def made_in_a_shell(self) -> bool:
        """Whether somebody who can read this machine's files anyway made the run, no visitor and no Hub."""
        return self.job().shell and absent(self.request) and absent(self.path / ORIGIN)

    def resumable(self, status: RunStatus | None = None) -> bool:
        """Whether the run ended early and can go on, from its last checkpoint or from its beginning."""
        return resumable(self.folder, status or self.status())

    def log_tail(self, lines: int = LOG_LINES) -> list[str]:
        """Return the last lines of the run's log, else of what its worker printed; tracebacks cut down.

        Args:
            lines: How many.
        """
        told = _without_traceback(_tail(self.folder.log)) or _without_traceback(_tail(self.worker_log))
        return [without_code_advice(line) for line in told[-lines:]]


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

    def names(self) -> list[str]:
        """Return the names of the folders that could be runs, newest first."""
        try:
            with os.scandir(self.root) as entries:
                found = [e.name for e in entries if valid_run_id(e.name) and e.is_dir(follow_symlinks=False)]
        except OSError:
            return []
        return sorted(found, reverse=True)

    def runs(self) -> list[Run]:
        """Return every run, newest first."""
        return [run for name in self.names() if (run := self.run(name))]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other app process from changing the queue while the body runs.

        Raises:
            FaultError: The directory cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = open(self.root / ".lock", "a")  # noqa: SIM115 (held for the whole block)
        except OSError as error:
            raise FaultError(
                f"The runs directory cannot be written: {error.strerror or error}. Free some space, or name "
                "another directory in RSM_RUNS_DIR."
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:  # closing alone would leave the lock with a process that was forked meanwhile
                fcntl.flock(file, fcntl.LOCK_UN)


def default_store() -> RunStore:
    """Return the runs directory of this installation; see ``places``."""
    return RunStore(runs_directory())


def _tail(path: Path, start: int = 0) -> list[str]:
    """Return the last lines of a file, from a byte on."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(start, file.tell() - _LOG_TAIL_BYTES))
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
