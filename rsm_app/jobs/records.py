"""The two small records that the app keeps in a run's folder: the job it was asked to do and its worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from trainers.processes import process_alive
from trainers.run_folder import fitting, read_json

Record = TypeVar("Record")


@dataclass(frozen=True)
class Job:
    """What the app knows of a run beside its settings.

    Attributes:
        owner: Who asked for it; empty when that is unknown.
        address: Where an owner who signed in asked from; empty when the owner is the address.
        submitted: When, in seconds since 1970.
        ticket: Number in the queue, growing from request to request; 0 when it does not wait. A ticket is
            used up when a worker was started for it.
        withdrawn: Whether it was taken out of the queue.
        pinned: Whether clean-up leaves it alone.
        shared: Whether others than the owner may look at it.
        limits: New values of ``budget_seconds`` and ``max_updates`` for the worker to come.
    """

    owner: str = ""
    address: str = ""
    submitted: float = 0.0
    ticket: int = 0
    withdrawn: bool = False
    pinned: bool = False
    shared: bool = False
    limits: dict = field(default_factory=dict)

    @property
    def owners(self) -> tuple[str, ...]:
        """Every name that the owner asked under, first the one whose run it is."""
        return (self.owner, self.address) if self.address else (self.owner,)


@dataclass(frozen=True)
class Worker:
    """The process that was last started for a run, as recorded by whoever started it.

    The record is written twice: before the process exists, without a pid, and after.

    Attributes:
        ticket: The ticket that it was started for.
        device: Where it works.
        seen: The ``states.mark`` of ``status.json`` before it was started; once that differs, it has spoken.
        pid: Its process id; 0 while none is known.
        pid_started: Its start time in seconds since 1970.
        pid_identity: What tells it apart, see ``trainers.processes``.
        log_start: Bytes that earlier processes had written to ``worker.txt``; its own words follow.
        exit_code: What it returned; negative for a signal, None while unknown.
        in_app: Whether it is a thread of the app, see ``zero_gpu``; then ``pid`` is the app's, and
            ``pid_started`` is when the thread began.
    """

    ticket: int = 0
    device: str = ""
    seen: str = ""
    pid: int = 0
    pid_started: float = 0.0
    pid_identity: str = ""
    log_start: int = 0
    exit_code: int | None = None
    in_app: bool = False

    @property
    def alive(self) -> bool:
        """Whether the process still runs; a thread of the app, whether it still works on the run."""
        return self.exit_code is None and process_alive(self.pid, self.pid_started, self.pid_identity)


def read_record(path: Path, kind: type[Record]) -> Record:
    """Read a record, with its defaults for what is missing or of another type."""
    return kind(**fitting(read_json(path) or {}, kind))
