"""Whether somebody may have one more run: in the queue, on the disk, pinned. Asked under the store's lock."""

from __future__ import annotations

from rsm_app.jobs.cleaning import MB, holding, low_disk
from rsm_app.jobs.index import Index
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.queue import of_owner
from rsm_app.jobs.records import Job
from rsm_app.jobs.store import RunStore
from trainers.errors import FaultError, InputError


def check_budget(limits: Limits, seconds: float) -> None:
    """Refuse a time budget that is longer than one may have."""
    limit = limits.run_seconds
    if limit and seconds > limit:
        raise InputError(
            f"A run may take {limit:g} seconds here, and this one asks for {seconds:g}; choose a shorter "
            "time budget."
        )


def check_turn(store: RunStore, index: Index, limits: Limits, asked: Job) -> None:
    """Refuse one more run of an owner in the queue.

    Raises:
        InputError: They have as much as one may have.
        FaultError: The disk is full.
    """
    # Another process may have queued a run of theirs, or given a ticket: every folder is looked at.
    waiting, cap = of_owner(index.rows(("queued",), scan=True), asked), limits.owner_queued
    if cap and len(waiting) >= cap:
        raise InputError(
            f"You have {cap:g} runs waiting already, as many as one may have here. Wait until one starts, or "
            "take one out of the queue."
        )
    check_room(store, index, limits, asked)


def check_room(store: RunStore, index: Index, limits: Limits, asked: Job) -> None:
    """Refuse a run that nothing could make room for: an owner's others go first, but not pinned ones.

    Raises:
        InputError: What the owner keeps from going takes as much as one may have.
        FaultError: The disk is full.
    """
    if limits.owner_kept or limits.owner_disk_mb:
        stays = [run for row in of_owner(index.rows(), asked) if not (run := holding(store, row)).removable]
        if limits.owner_kept and sum(run.counted for run in stays) >= limits.owner_kept:
            raise InputError(
                f"You keep {limits.owner_kept:g} pinned runs, as many as one may keep here. Unpin or delete "
                "one first."
            )
        size = sum(run.size for run in stays) / MB
        if limits.owner_disk_mb and size >= limits.owner_disk_mb:
            raise InputError(
                f"Your pinned runs and those at work take {size:.0f} MB, and one may have "
                f"{limits.owner_disk_mb:g} MB here. Unpin or delete a run first."
            )
    if trouble := low_disk(store, limits.free_mb):
        raise FaultError(trouble)


def check_pin(store: RunStore, index: Index, limits: Limits, run_id: str) -> None:
    """Refuse to pin one more run of an owner.

    Raises:
        InputError: They have pinned as many as one may, or as much as they may have.
    """
    row = index.row(run_id)
    if row is None or row.pinned:
        return
    mine = of_owner(index.rows(), Job(row.owner, row.address))
    pinned = [other for other in mine if other.pinned]
    if limits.owner_pinned and len(pinned) >= limits.owner_pinned:
        raise InputError(
            f"You have pinned {len(pinned)} runs, and one may pin {limits.owner_pinned:g} here. Unpin one "
            "first."
        )
    size = sum(holding(store, other).size for other in (row, *pinned)) / MB
    if limits.owner_disk_mb and size > limits.owner_disk_mb:
        raise InputError(
            f"With this one your pinned runs would take {size:.0f} MB, more than the "
            f"{limits.owner_disk_mb:g} MB that one may have here. Unpin another one first."
        )
