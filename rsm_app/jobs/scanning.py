"""Which run folders an index reads again: those that can change, those that came or went, and a part of the
others at a time.

Thousands of ended runs must cost nothing at rest. So the listing of the directory is read when its time of
change is another one, and of the folders known to have ended only some are looked at now and then: what
another process or a shell does to an old run is seen a little later the more runs there are.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from pathlib import Path

from rsm_app.jobs.states import UNENDED
from rsm_app.jobs.store import RunStore

PERIOD_SECONDS = 2.0
PART = 250  # folders that are looked at in a period
_WATCHED = ("status.json", "job.json", "worker.json")
_STATES = ", ".join(f"'{state}'" for state in UNENDED)
MOVING = f" WHERE (state IN ({_STATES}) OR holds = 1)"
_LAST = "\x7f"  # sorts after every id


class Scanner:
    """Follows one runs directory for one database; not for several threads at once."""

    def __init__(self, store: RunStore):
        """Name the directory; nothing is read yet."""
        self._store = store
        self.restart()

    def restart(self) -> None:
        """Look at everything anew, for a database that is another one or was left alone for a while."""
        self._changed: int | None = None
        self._looked = -math.inf
        self._settled = False
        self._below = _LAST
        self._unread: set[str] = set()

    def stale(self, database: sqlite3.Connection, everything: bool) -> set[str]:
        """Return the names of folders whose rows may not be as the folders are.

        Args:
            database: The index, with its table of runs.
            everything: Whether every folder is looked at now.
        """
        moving = database.execute(f"SELECT id, holds, stamp FROM runs{MOVING}")
        found = {  # what only waits has no process that could vanish, so its files say all
            name for name, holds, known in moving if holds or known != stamp(self._store.root / name)
        }
        if everything or self._looked == -math.inf:
            self._looked = time.monotonic()
            return found | self._listing(database, always=True) | self._differing(database, "", ())
        listed = self._listing(database, always=False)
        if time.monotonic() - self._looked <= PERIOD_SECONDS:
            return found | listed
        self._looked = time.monotonic()
        if not listed and not self._settled:  # the clock of a file system is coarse: it may not show a change
            listed = self._listing(database, always=True)
        return found | listed | self._part(database)

    def _listing(self, database: sqlite3.Connection, always: bool) -> set[str]:
        """Return names that came and names that went, if the directory's time of change is another one."""
        try:
            changed = os.stat(self._store.root).st_mtime_ns
        except OSError:
            changed = None
        if changed == self._changed and not always:
            return set()
        self._settled = changed == self._changed
        self._changed = changed
        present, known = set(self._store.names()), _known(database)
        self._unread = present - known
        return self._unread | (known - present)

    def _part(self, database: sqlite3.Connection) -> set[str]:
        """Return what differs among the next few folders, and the names of which nothing is known yet."""
        if self._unread:
            self._unread -= _known(database)
        found = set(self._unread)
        found |= {name for (name,) in database.execute("SELECT id FROM runs WHERE stamp = ''")}
        ids = database.execute(
            "SELECT id FROM runs WHERE id < ? ORDER BY id DESC LIMIT ?", (self._below, PART)
        )
        names = [name for (name,) in ids]
        if names:
            found |= self._differing(database, " WHERE id < ? AND id >= ?", (self._below, names[-1]))
        self._below = names[-1] if len(names) == PART else _LAST
        return found

    def _differing(self, database: sqlite3.Connection, where: str, values: tuple) -> set[str]:
        rows = database.execute(f"SELECT id, stamp FROM runs{where}", values)
        return {name for name, known in rows if known != stamp(self._store.root / name)}


def _known(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT id FROM runs")}


def stamp(folder: Path) -> str:
    """Return a text that changes when the files do that say what a run is doing."""
    path, parts = str(folder), []  # text, for it is done for every waiting run at every tick
    for name in _WATCHED:
        try:
            info = os.stat(f"{path}/{name}")
            parts.append(f"{info.st_mtime_ns}:{info.st_size}:{info.st_ino}")
        except OSError:
            parts.append("-")
    return " ".join(parts)
