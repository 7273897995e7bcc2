"""Room on the disk: how much is free, and which finished runs go when the quota is exceeded.

Only runs that the app made are ever deleted, and among them never one that waits, works or is pinned.
"""

from __future__ import annotations

import os
import shutil

from rsm_app.jobs.index import Index, Row, folder_bytes
from rsm_app.jobs.states import ENDED
from rsm_app.jobs.store import RunStore
from trainers.errors import FaultError
from trainers.run_lock import try_lock

MB = 2**20
_TRASH = ".trash-"


def free_mb(store: RunStore) -> float:
    """Return the MB (2**20 bytes) that are free where runs live."""
    place = store.root
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free / MB


def low_disk(store: RunStore, minimum_mb: float) -> str:
    """Return a sentence when less than ``minimum_mb`` are free; else an empty string."""
    free = free_mb(store)
    if free >= minimum_mb:
        return ""
    return (
        f"The disk has {free:.0f} MB left, less than the {minimum_mb:.0f} MB that are kept free: delete old "
        "runs or other files."
    )


def enforce_quota(store: RunStore, index: Index, quota_mb: float) -> list[str]:
    """Delete the oldest finished runs until all runs fit the quota; return the deleted ids.

    Only under the store's lock.
    """
    empty_trash(store)
    if not quota_mb:
        return []
    rows = index.rows(scan=True)
    sizes = {row.id: row.bytes or folder_bytes(store.root / row.id) for row in rows}
    total, deleted = sum(sizes.values()), []
    for row in sorted(rows, key=lambda row: (row.ticket, row.id)):
        if total <= quota_mb * MB:
            break
        if _may_go(row) and delete(store, index, row.id):
            total -= sizes[row.id]
            deleted.append(row.id)
    return deleted


def _may_go(row: Row) -> bool:
    made_here = row.submitted > 0
    return made_here and row.state in ENDED and not row.pinned and not row.waits


def delete(store: RunStore, index: Index, run_id: str) -> bool:
    """Delete a run unless a process is at work on it; return whether it is gone. Only under the lock."""
    run = store.run(run_id)
    if run is None or run.status().state not in ENDED:
        return False
    try:
        held = try_lock(run.path)
    except FaultError:
        return False
    if held is None:
        return False
    try:
        trash = store.root / f"{_TRASH}{run_id}"  # out of sight at once, so that nobody meets half a run
        os.rename(run.path, trash)
        shutil.rmtree(trash, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(held)
    index.note(run)
    return True


def empty_trash(store: RunStore) -> None:
    """Finish deletions that were cut off."""
    for path in store.root.glob(f"{_TRASH}*"):
        shutil.rmtree(path, ignore_errors=True)
