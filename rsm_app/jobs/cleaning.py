"""Room on the disk: how much is free, and which finished runs go when the quota is exceeded.

Only runs that the app made are ever deleted, and among them never one that waits, works, is being
published or is pinned.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from pathlib import Path

from rsm_app.jobs.index import Index, Row, folder_bytes
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.owners import share_of_owner
from rsm_app.jobs.shares import Holding, Shares
from rsm_app.jobs.states import ENDED
from rsm_app.jobs.store import Run, RunStore
from trainers.errors import FaultError
from trainers.run_lock import try_lock, unlock

MB = 2**20
PUSH = ".push"  # below a run's folder; whoever publishes the run holds its lock from first to last
ARRIVAL = ".fetch-"  # how the folder begins in which a run is brought, locked by whoever brings it
_ARRIVAL_SECONDS = 3600.0
_TRASH = ".trash-"


def free_mb(store: RunStore) -> float:
    """Return the MB (2**20 bytes) that are free where runs live."""
    place = store.root
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free / MB


def low_disk(store: RunStore, minimum_mb: float, needed_mb: float = 0.0) -> str:
    """Return a sentence when less than ``minimum_mb`` are free beside ``needed_mb``; else an empty string."""
    free = free_mb(store)
    if free >= minimum_mb + needed_mb:
        return ""
    if needed_mb:
        return (
            f"The disk has {free:.0f} MB left, this needs {needed_mb:.0f} MB, and {minimum_mb:.0f} MB are "
            "kept free: delete old runs or other files."
        )
    return (
        f"The disk has {free:.0f} MB left, less than the {minimum_mb:.0f} MB that are kept free: delete old "
        "runs or other files."
    )


def enforce_quota(store: RunStore, index: Index, limits: Limits) -> list[str]:
    """Delete finished runs until every owner and all together keep to the limits; return the deleted ids.

    Only under the store's lock.
    """
    empty_trash(store)
    shares = Shares(limits.disk_mb * MB, limits.owner_disk_mb * MB, limits.owner_kept)
    if shares == Shares():
        return []
    rows, deleted = index.rows(), []
    holdings = {row.id: holding(store, row) for row in rows}
    while excess := shares.excess(holdings.values()):
        for run in excess:
            if delete(store, index, run.id):
                deleted.append(run.id)
                del holdings[run.id]
            else:  # a process is still in its folder
                holdings[run.id] = dataclasses.replace(run, removable=False)
    return deleted


def holding(store: RunStore, row: Row) -> Holding:
    """Return what a run takes of its owner's share; one that never began goes before all others."""
    made_here, ended = row.submitted > 0, row.state in ENDED
    return Holding(
        id=row.id,
        owner=share_of_owner(row.owner) if made_here else None,
        size=row.bytes or folder_bytes(store.root / row.id),
        age=(row.started > 0, max(row.submitted, row.heartbeat), row.id),
        removable=made_here and ended and not row.pinned and not row.waits,
        counted=ended,
    )


def why_it_stays(run: Run) -> str:
    """Return a sentence on why a run may not be deleted now, and what to do first; empty when it may."""
    state = run.status().state
    if state == "queued":
        return "This run waits in the queue. Take it out of the queue, then delete it."
    if state not in ENDED:
        return "This run is still at work. Stop it, then delete it."
    if being_published(run.path):
        return (
            "This run is being published. Cancel that on the page Publish, or wait for its end, then "
            "delete it."
        )
    return "This run is pinned, so that it stays. Unpin it, then delete it." if run.job().pinned else ""


def being_published(folder: Path) -> bool:
    """Whether some process sends a run to the Hub; the lock of one that died is free again."""
    place = folder / PUSH
    if not place.is_dir():  # trying a lock makes its folder, and a full disk must not keep a run from going
        return False
    try:
        held = try_lock(place)
    except FaultError:
        return False
    if held is not None:
        unlock(held)
    return held is None


def delete(store: RunStore, index: Index, run_id: str) -> bool:
    """Delete a run unless a process is at work on it; return whether it is gone. Only under the lock."""
    run = store.run(run_id)
    if run is None or run.status().state not in ENDED or being_published(run.path):
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
        unlock(held)
    index.note(run)
    return True


def empty_trash(store: RunStore) -> None:
    """Finish deletions that were cut off, and remove what a killed import left."""
    for path in store.root.glob(f"{_TRASH}*"):
        shutil.rmtree(path, ignore_errors=True)
    sweep_arrivals(store.root)


def sweep_arrivals(place: Path) -> None:
    """Remove half-brought runs whose bringer is gone; the newest stay, they may not be locked yet."""
    for path in place.glob(f"{ARRIVAL}*"):
        with contextlib.suppress(OSError, FaultError):
            if time.time() - path.stat().st_mtime < _ARRIVAL_SECONDS:
                continue
            held = try_lock(path)
            if held is not None:
                shutil.rmtree(path, ignore_errors=True)
                unlock(held)
