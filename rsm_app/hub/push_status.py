"""What a push is doing, apart from what its run is doing: ``push.json`` in the run folder.

Whoever pushes writes it, everybody else reads it and may ask for a stop. It says which process is at work, so
one that ended with its process reads as interrupted, never as running. A token is never part of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from rsm_app.jobs.cleaning import PUSH
from trainers.processes import process_alive
from trainers.run_folder import atomic_write, read_json, write_json

PHASES = ("prepare", "create", "upload", "commit", "done")
STATES = ("none", "running", "waiting", "succeeded", "failed", "cancelled", "interrupted")
AT_WORK = ("running", "waiting")
FILE = "push.json"
PLACE = PUSH
_STOP = "stop"
INTERRUPTED = "The app ended while this push was at work."
AGAIN = "Push again: it goes on from where it was, and the repository's newest revision is unchanged."


@dataclass(frozen=True)
class PushStatus:
    """The state of a run's latest push.

    Attributes:
        state: One of ``STATES``; ``waiting`` is at work too, until the Hub takes requests again.
        phase: One of ``PHASES``.
        repo: The repository's full name.
        private: Whether it was asked to be private; an existing one keeps its visibility.
        approved: The stamp of what somebody saw and wanted, see ``target.stamp``; empty when nobody looked.
        message: One sentence about the present activity or the result.
        kind: What went wrong, a key of ``problems.WORDS``, else empty.
        error: The cause of a failure, one sentence, else empty.
        remedy: What to do about it, else empty.
        retry_after: Seconds that the Hub asks to wait; 0 when it does not.
        bytes_done: Bytes that are sent.
        bytes_total: Bytes of all files.
        files_total: Number of files.
        url: Address of the repository's page once it exists.
        commit: The new revision.
        commit_url: Its address.
        started: When, in seconds since 1970.
        finished: When it ended; 0 while it works.
        pid: The process at work.
        pid_started: Its start, in seconds since 1970.
        pid_identity: What tells it apart, see ``trainers.processes``.
    """

    state: str = "none"
    phase: str = "prepare"
    repo: str = ""
    private: bool = False
    approved: str = ""
    message: str = ""
    kind: str = ""
    error: str = ""
    remedy: str = ""
    retry_after: float = 0.0
    bytes_done: int = 0
    bytes_total: int = 0
    files_total: int = 0
    url: str = ""
    commit: str = ""
    commit_url: str = ""
    started: float = 0.0
    finished: float = 0.0
    pid: int = 0
    pid_started: float = 0.0
    pid_identity: str = ""

    @property
    def at_work(self) -> bool:
        """Whether it goes on."""
        return self.state in AT_WORK

    @property
    def progress(self) -> float:
        """Share of the bytes that are sent, in [0, 1]."""
        return min(1.0, self.bytes_done / self.bytes_total) if self.bytes_total else 0.0

    @property
    def can_retry(self) -> bool:
        """Whether pushing to the same repository once more makes sense."""
        return self.state in ("failed", "cancelled", "interrupted")

    @property
    def outdated(self) -> bool:
        """Whether what was approved is not what a push would do now, so that it has to be looked at again."""
        return self.kind in ("conflict", "moved")


def read_push(run: Path) -> PushStatus:
    """Return the state of a run's latest push, held against the process that did it."""
    raw, values = read_json(run / FILE) or {}, {}
    for info in dataclasses.fields(PushStatus):
        value = raw.get(info.name)
        usual = type(info.default)
        if isinstance(value, usual) or (usual is float and type(value) is int):
            values[info.name] = value
    status = PushStatus(**values)
    if status.state not in STATES:
        return PushStatus()
    if status.at_work and not process_alive(status.pid, status.pid_started, status.pid_identity):
        return dataclasses.replace(
            status, state="interrupted", kind="interrupted", error=INTERRUPTED, remedy=AGAIN, message=""
        )
    return status


def write_push(run: Path, status: PushStatus) -> None:
    """Write the state, atomically.

    Raises:
        FaultError: The disk is full or the folder cannot be written.
    """
    write_json(run / FILE, dataclasses.asdict(status))


def cancel_push(run: Path) -> bool:
    """Ask the push at work on a run, in whichever process, to end; return whether there is one.

    Raises:
        FaultError: The folder cannot be written.
    """
    if not read_push(run).at_work:
        return False
    atomic_write(run / PLACE / _STOP, "")
    return True


def cancel_requested(run: Path) -> bool:
    """Whether somebody asked the push of a run to end."""
    return (run / PLACE / _STOP).exists()


def forget_cancel(run: Path) -> None:
    """Remove a request that an earlier push obeyed or did not live to obey."""
    with contextlib.suppress(OSError):
        (run / PLACE / _STOP).unlink(missing_ok=True)
