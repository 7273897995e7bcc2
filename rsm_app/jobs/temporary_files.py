"""Files of visitors that are there for a while: what they upload, and what they export to take away.

Each is known by whose it is and counts in their share. An owner beyond it loses their own oldest; a second
export of the same thing takes the place of the first; and all end after a while. Gradio's own clearing of its
cache goes on beside this, for pictures.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rsm_app.jobs.index import folder_bytes
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.owners import share_of_owner
from rsm_app.jobs.shares import Holding, Shares

SHARED_SECONDS, PRIVATE_SECONDS = 3600.0, 86400.0  # that a file is kept, with limits and without
MOST_FILES = 200  # of one owner, where they have a share: small ones take little of it, and time to count
MB = 2**20


@dataclass(frozen=True)
class _Kept:
    """A folder with one file.

    Attributes:
        folder: The folder, made for this file alone.
        owner: Who put it there first; others may upload the same file.
        size: Bytes.
        at: When it was last put there.
        key: What another file would take the place of; empty for an upload.
    """

    folder: Path
    owner: str
    size: int
    at: float
    key: str


class TemporaryFiles:
    """The temporary files of one app; may be used by several threads."""

    def __init__(self, limits: Limits):
        """Set the shares; nothing is there yet."""
        count = MOST_FILES if limits.owner_files_mb else 0
        self._shares = Shares(limits.files_mb * MB, limits.owner_files_mb * MB, count)
        self._seconds = PRIVATE_SECONDS if self._shares == Shares() else SHARED_SECONDS
        self._kept: dict[Path, _Kept] = {}
        self._lock = threading.Lock()

    def uploaded(self, owner: str, files: Iterable[str]) -> None:
        """Take over files that somebody has uploaded, each in a folder of its own."""
        for file in files:
            self.keep(owner, Path(file).parent)

    def keep(self, owner: str, folder: Path, key: str = "") -> bool:
        """Take over a folder with one file, and make room for it; return whether there was any.

        Args:
            owner: Whose it is.
            folder: Made for this file alone.
            key: What it is an export of; an earlier one of the same key goes.
        """
        with self._lock:
            known = self._kept.get(folder)
            first = known.owner if known else share_of_owner(owner)
            self._kept[folder] = _Kept(folder, first, folder_bytes(folder), time.time(), key)
            same = [kept for kept in self._kept.values() if key and kept.key == key and kept.folder != folder]
            self._remove(same)
            self._make_room()
            return folder in self._kept

    def forget_exports(self, run_id: str) -> None:
        """Remove what was exported of a run that is gone."""
        with self._lock:
            self._remove([kept for kept in self._kept.values() if kept.key.partition("/")[0] == run_id])

    def sweep(self) -> None:
        """Remove what has been there for long enough."""
        before = time.time() - self._seconds
        with self._lock:
            self._remove([kept for kept in self._kept.values() if kept.at < before])

    def _make_room(self) -> None:
        for kept in self._shares.excess(map(_holding, self._kept.values())):
            self._remove([self._kept[Path(kept.id)]])

    def _remove(self, files: Iterable[_Kept]) -> None:
        for kept in files:
            shutil.rmtree(kept.folder, ignore_errors=True)
            self._kept.pop(kept.folder, None)


def _holding(kept: _Kept) -> Holding:
    return Holding(str(kept.folder), kept.owner, kept.size, (kept.at,), removable=True)
