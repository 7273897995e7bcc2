"""The two small records that the app keeps in a run's folder: the job it was asked to do and its worker.

A record that is there but cannot be read is not the same as none: it must open nothing to anybody. What is
left out on purpose: when a missing record is that of a run which was made in a shell, see ``store``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from rsm_app.jobs.owners import NOBODY, owner_of_address
from trainers.processes import process_alive
from trainers.run_folder import fitting

_MOST_BYTES = 65536
_EARLIER = {"submitted", "ticket", "withdrawn", "pinned"}


class DamagedRecord(Exception):
    """A record is there, or may be, and cannot be read; the text says why."""


@dataclass(frozen=True)
class Job:
    """What the app knows of a run beside its settings.

    Attributes:
        owner: Who asked for it; empty only for a run that was made in a shell, which is everybody's.
        address: Where an owner who signed in asked from; empty when the owner is the address.
        submitted: When, in seconds since 1970.
        ticket: Number in the queue, growing from request to request; 0 when it does not wait. A ticket is
            used up when a worker was started for it.
        withdrawn: Whether it was taken out of the queue.
        pinned: Whether clean-up leaves it alone.
        shared: Whether others than the owner may look at it.
        limits: New values of ``budget_seconds`` and ``max_updates`` for the worker to come.
        shell: Whether it says that it was made in a shell, or by the app's own operator there.
    """

    owner: str = ""
    address: str = ""
    submitted: float = 0.0
    ticket: int = 0
    withdrawn: bool = False
    pinned: bool = False
    shared: bool = False
    limits: dict = field(default_factory=dict)
    shell: bool = False

    @property
    def owners(self) -> tuple[str, ...]:
        """Every name that the owner asked under, first the one whose run it is."""
        return (self.owner, self.address) if self.address else (self.owner,)

    @property
    def damaged(self) -> bool:
        """Whether this stands for a record that cannot be read."""
        return self.owner == NOBODY


@dataclass(frozen=True)
class Worker:
    """The process that was last started for a run, as recorded by whoever started it.

    The record is written twice: before the process exists, without a pid, and after.

    Attributes:
        ticket: The ticket that it was started for; negative when the record cannot be read.
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

    @property
    def damaged(self) -> bool:
        """Whether this stands for a record that cannot be read."""
        return self.ticket < 0


UNREADABLE_JOB = Job(owner=NOBODY, pinned=True)  # nobody's, and cleaned away by nothing
UNREADABLE_WORKER = Worker(ticket=-1)  # no ticket is still to be used, and none is this one's


def read_job(path: Path) -> Job | None:
    """Return a job's record, or None when there certainly is none; errors as in ``read_worker``."""
    raw = _read(path)
    if raw is None:
        return None
    job = Job(**_values(raw, Job, "owner"))
    if not job.owner:
        # Records of a version that did not say so have every one of these, an empty owner among them.
        says = job.shell if "shell" in raw else raw.keys() >= _EARLIER
        if not says:
            raise DamagedRecord("it names no owner, and does not say that it was made in a shell")
    owner, address = owner_of_address(job.owner), owner_of_address(job.address)
    return replace(job, owner=owner, address=address, shell=not owner)


def read_worker(path: Path) -> Worker | None:
    """Return a worker's record, or None when there certainly is none.

    Raises:
        DamagedRecord: It cannot be read, or is not what this app writes; then none of its values counts.
    """
    raw = _read(path)
    return None if raw is None else Worker(**_values(raw, Worker, "ticket"))


def absent(path: Path) -> bool:
    """Whether there certainly is no file; whatever cannot be looked at may be there."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _read(path: Path) -> dict | None:
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        if not absent(path):  # a link that leads nowhere
            raise DamagedRecord("it leads nowhere") from error
        return None
    except OSError as error:
        raise DamagedRecord(error.strerror or str(error)) from error
    if len(content) > _MOST_BYTES:
        raise DamagedRecord("it is too large")
    try:
        raw = json.loads(content.decode())
        json.dumps(raw, ensure_ascii=False).encode()  # no half characters, which no database takes
    except (ValueError, RecursionError) as error:
        raise DamagedRecord("it is no JSON") from error
    if not isinstance(raw, dict):
        raise DamagedRecord("it is no record")
    return raw


def _values(raw: dict, kind: type, needed: str) -> dict:
    """Return the fields of a record; a wrong one spoils it as a whole, for its default might open it."""
    known = fitting(raw, kind)
    wrong = [name for name in kind.__dataclass_fields__ if name in raw and name not in known]
    if wrong or needed not in known:
        raise DamagedRecord(f"its {', '.join(wrong) or needed} cannot be read")
    return known
