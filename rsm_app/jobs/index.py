"""An index of the run folders in SQLite, so that lists and queues are quick; the folders stay the truth.

Runs that can change are read from their folders every time, finished ones again when their files are seen to
have changed (``scanning``). A damaged index is made anew from the folders; where none can be written it lives
in memory.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rsm_app.jobs.owners import share_shell_runs
from rsm_app.jobs.records import Job
from rsm_app.jobs.scanning import MOVING, Scanner, stamp
from rsm_app.jobs.states import ENDED, waiting
from rsm_app.jobs.store import Run, RunStore
from trainers.run_folder import DAMAGED

_VERSION = 4


@dataclass(frozen=True)
class Row:
    """One run of the index.

    Attributes:
        id: The run's id.
        owner: Who asked for it.
        address: Where an owner who signed in asked from.
        state: One of ``states.STATES``.
        phase: What its worker does or did last.
        config: Its settings as JSON.
        device: Where its worker works or worked.
        pid: Its latest worker's process id; 0 for none.
        pid_started: That process's start, in seconds since 1970.
        heartbeat: When it last wrote its status, in seconds since 1970.
        submitted: When it was asked for, in seconds since 1970.
        started: When it first began, in seconds since 1970.
        ticket: Its latest place in the order of requests.
        waits: Whether that ticket is still to be used.
        eta_seconds: Expected seconds to its end, or -1.
        message: One sentence about the present.
        error: One sentence on what went wrong.
        bytes: Size of its folder when it ended; 0 before.
        pinned: Whether clean-up leaves it alone.
        shared: Whether others than the owner may look at it.
        holds: Whether it holds its device: it is at work, or a process of its latest worker still lives.
        stamp: Changes when its files do.
    """

    id: str
    owner: str
    address: str
    state: str
    phase: str
    config: str
    device: str
    pid: int
    pid_started: float
    heartbeat: float
    submitted: float
    started: float
    ticket: int
    waits: bool
    eta_seconds: float
    message: str
    error: str
    bytes: int
    pinned: bool
    shared: bool
    holds: bool
    stamp: str

    @property
    def owners(self) -> tuple[str, ...]:
        """Every name that its owner asked under, as in ``records.Job``."""
        return Job(self.owner, address=self.address).owners

    @property
    def settings(self) -> dict:
        """The run's settings by name."""
        return json.loads(self.config)


@dataclass(frozen=True)
class Page:
    """A part of the runs, and all of them together.

    Attributes:
        rows: The runs of the part, newest first.
        offset: How many newer ones fit as well.
        found: How many fit at all.
        states: How many of all runs that may be seen are in each state that occurs.
        bytes: Size of the folders of those that have ended.
    """

    rows: list[Row]
    offset: int
    found: int
    states: dict[str, int]
    bytes: int


_COLUMNS = tuple(info.name for info in fields(Row))
_BOOLEAN = ("waits", "pinned", "shared", "holds")


class Index:
    """The index of one runs directory; may be used by several threads and, beside each other, processes."""

    def __init__(self, store: RunStore):
        """Name the directory; the database is opened by the first read."""
        self._store = store
        self._path = store.root / ".index" / "runs.sqlite"
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._scanner = Scanner(store)
        self._unreadable: set[str] = set()

    def rows(
        self,
        states: Iterable[str] = (),
        limit: int = -1,
        scan: bool = False,
        viewer: Sequence[str] | None = None,
    ) -> list[Row]:
        """Return runs, newest first.

        Args:
            states: Only runs in these states; all when empty.
            limit: At most this many; -1 for all.
            scan: Whether every folder is looked at, not only those that are expected to have changed.
            viewer: Only runs that somebody with these names may look at.
        """
        where, values = _where(states=states, viewer=viewer)
        return self._attempt(lambda: self._read(where, values, limit, scan=scan))

    def moving(self) -> list[Row]:
        """Return the runs that wait, work, or have ended but for a process, newest first."""
        return self._attempt(lambda: self._read(MOVING, ()))

    def row(self, run_id: str) -> Row | None:
        """Return one run, or None when there is no such run.

        Its folder is looked at itself: it may have been met before it held a run, or a shell may have changed
        it, and the next look at all of them can be seconds away.
        """
        return self._attempt(lambda: self._read_row(run_id))

    def page(
        self,
        limit: int,
        offset: int = 0,
        states: Iterable[str] = (),
        pinned: bool = False,
        fits: Callable[[str, str, str, str], bool] | None = None,
        viewer: Sequence[str] | None = None,
    ) -> Page:
        """Return a part of the runs, newest first, and how many there are, without reading all of them.

        Args:
            limit: At most this many, and at least 1.
            offset: How many of the newest are left out; less when nothing would be left.
            states: Only runs in these states; all when empty.
            pinned: Whether only pinned runs are wanted.
            fits: Whether a run is wanted, by its id, state, owner and settings as JSON.
            viewer: Only runs that somebody with these names may look at, in the sums as well.
        """
        where, everything = _where(states=states, pinned=pinned, viewer=viewer), _where(viewer=viewer)
        return self._attempt(lambda: self._read_page(*where, everything, fits, limit, offset))

    def queue(self, scan: bool = False) -> list[Row]:
        """Return the waiting runs, first come first."""
        return sorted(self.rows(("queued",), scan=scan), key=lambda row: row.ticket)

    def last_ticket(self) -> int:
        """Return the highest ticket that any run has."""
        return self._attempt(lambda: self._value("SELECT MAX(ticket) FROM runs")) or 0

    def changes(self) -> int:
        """Return a number that is another one after any row has changed."""
        return self._attempt(lambda: self._database.total_changes)

    def note(self, run: Run) -> None:
        """Read one run's folder again."""
        self._attempt(lambda: self._update_row(run.id))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None

    def _attempt(self, action):
        """Do something with the database: on a new one if it is damaged, in memory if that fails too."""
        with self._lock:
            for place in ("as it is", "new", "in memory"):
                try:
                    self._open(place)
                    return action()
                except (sqlite3.Error, OSError):
                    self.close()
                    if place == "in memory":
                        raise

    def _open(self, place: str) -> None:
        if self._database is not None:
            return
        if place == "new":
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        if place != "in memory":
            self._path.parent.mkdir(parents=True, exist_ok=True)
        name = ":memory:" if place == "in memory" else self._path
        self._database = sqlite3.connect(name, timeout=5.0, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            self._database.execute("DROP TABLE IF EXISTS runs")
        self._database.execute(f"CREATE TABLE IF NOT EXISTS runs (id PRIMARY KEY, {', '.join(_COLUMNS[1:])})")
        self._database.execute("CREATE INDEX IF NOT EXISTS by_state ON runs (state)")
        self._database.execute("CREATE INDEX IF NOT EXISTS by_process ON runs (holds)")
        self._database.execute(f"PRAGMA user_version={_VERSION}")
        self._scanner.restart()

    def _value(self, query: str):
        self._refresh(scan=False)
        return self._database.execute(query).fetchone()[0]

    def _read(self, where: str, values: tuple, limit: int = -1, scan: bool = False) -> list[Row]:
        self._refresh(scan)
        return self._select(where, values, limit)

    def _read_row(self, run_id: str) -> Row | None:
        where, values = _where(ids=(run_id,))
        found = next(iter(self._read(where, values)), None)
        if found is None and self._store.run(run_id) is None:
            return None
        if found is None or found.stamp != stamp(self._store.root / run_id):
            self._update_row(run_id)
            found = next(iter(self._select(where, values)), None)
        return found

    def _select(self, where: str, values: tuple, limit: int = -1, offset: int = 0) -> list[Row]:
        query = f"SELECT {', '.join(_COLUMNS)} FROM runs{where} ORDER BY id DESC LIMIT ? OFFSET ?"
        return [_row(cells) for cells in self._database.execute(query, (*values, limit, offset))]

    def _read_page(self, where: str, values: tuple, everything: tuple, fits, limit: int, offset: int) -> Page:
        self._refresh(scan=False)
        ids: list[str] = []
        if fits is None:
            (found,) = self._database.execute(f"SELECT COUNT(*) FROM runs{where}", values).fetchone()
        else:
            query = f"SELECT id, state, owner, config FROM runs{where} ORDER BY id DESC"
            ids = [cells[0] for cells in self._database.execute(query, values) if fits(*cells)]
            found = len(ids)
        offset = min(offset, max(0, found - 1) // limit * limit)
        if fits is None:
            rows = self._select(where, values, limit, offset)
        else:
            rows = self._select(*_where(ids=ids[offset : offset + limit]))
        sums = f"SELECT state, COUNT(*), SUM(bytes) FROM runs{everything[0]} GROUP BY state"
        totals = self._database.execute(sums, everything[1]).fetchall()
        return Page(
            rows=rows,
            offset=offset,
            found=found,
            states={state: count for state, count, _ in totals},
            bytes=sum(size for *_, size in totals),
        )

    def _refresh(self, scan: bool) -> None:
        """Bring rows up to date; all of them, or those of which ``scanning`` says so."""
        for name in self._scanner.stale(self._database, scan):
            self._update_row(name)

    def _update_row(self, name: str) -> None:
        """Bring one row up to date; what no reader expects in one folder must not hide the others."""
        try:
            self._store_row(name)
            self._unreadable.discard(name)
        except (sqlite3.Error, OSError):
            raise
        except Exception:
            if name not in self._unreadable:
                logging.getLogger(__name__).exception("The run %s cannot be listed.", name)
            self._unreadable.add(name)

    def _store_row(self, name: str) -> None:
        run = self._store.run(name)
        if run is None:
            self._database.execute("DELETE FROM runs WHERE id = ?", (name,))
            return
        row = self._describe(run)
        old = self._database.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs WHERE id = ?", (name,))
        if old.fetchone() != tuple(asdict(row).values()):
            places = ", ".join("?" * len(_COLUMNS))
            values = tuple(asdict(row).values())
            self._database.execute(f"INSERT OR REPLACE INTO runs VALUES ({places})", values)

    def _describe(self, run: Run) -> Row:
        seen = stamp(run.path)  # before reading: what changes meanwhile is read again
        status, job, worker, settings = run.status(), run.job(), run.worker(), run.settings()
        if job.damaged or worker.damaged or status.error == DAMAGED or not settings:
            seen = ""  # read again at every look: what failed may have been this process, out of files
        return Row(
            id=run.id,
            owner=job.owner,
            address=job.address,
            state=status.state,
            phase=status.phase,
            config=json.dumps(settings),
            device=worker.device,
            pid=status.pid if status.live and status.pid else worker.pid,
            pid_started=worker.pid_started,
            heartbeat=status.heartbeat,
            submitted=job.submitted,
            started=status.started,
            ticket=job.ticket,
            waits=waiting(status, job, worker),
            eta_seconds=-1.0 if status.eta_seconds is None else status.eta_seconds,
            message=status.message,
            error=status.error,
            bytes=folder_bytes(run.path) if status.state in ENDED else 0,
            pinned=job.pinned,
            shared=job.shared,
            holds=status.live or worker.alive,
            stamp=seen,
        )


def _where(
    states: Iterable[str] = (),
    pinned: bool = False,
    ids: Sequence[str] | None = None,
    viewer: Sequence[str] | None = None,
) -> tuple[str, tuple]:
    """Return a condition with its values."""
    conditions, values = [], []
    for column, allowed in (("state", tuple(states) or None), ("id", ids)):
        if allowed is not None:
            conditions.append(f"{column} IN ({', '.join('?' * len(allowed))})")
            values += allowed
    if pinned:
        conditions.append("pinned")
    if viewer is not None:
        names = ("", *viewer) if share_shell_runs(viewer) else tuple(viewer)
        conditions.append(f"(owner IN ({', '.join('?' * len(names))}) OR shared)")
        values += names
    return f" WHERE {' AND '.join(conditions)}" if conditions else "", tuple(values)


def folder_bytes(folder: Path) -> int:
    """Return how many bytes the files of a folder take."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total


def _row(cells: tuple) -> Row:
    values = dict(zip(_COLUMNS, cells, strict=True))
    return Row(**values | {name: bool(values[name]) for name in _BOOLEAN})
