"""The queue: who is next on which device, and when the others may expect to start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rsm_app.jobs.devices import usable
from rsm_app.jobs.index import Row
from rsm_app.jobs.owners import share_of_owner
from rsm_app.jobs.records import Job

_USUAL_SECONDS = 120.0


@dataclass(frozen=True)
class Place:
    """A waiting run's place.

    Attributes:
        position: 1 for the next one.
        length: How many wait.
        seconds: Expected seconds until it starts; None when no device of this machine can take it.
    """

    position: int
    length: int
    seconds: float | None


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return the waiting runs among others, first come first."""
    return sorted((row for row in rows if row.state == "queued"), key=lambda row: row.ticket)


def of_owner(rows: Iterable[Row], asked: Job | Row) -> list[Row]:
    """Return which of some runs count as those of whoever asked for one, towards what one may have.

    Somebody who signed in counts together with whoever asks from the same address without a name, so that
    signing out gives no second share; two who signed in do not for sharing an address.
    """
    first, shares = share_of_owner(asked.owner), set(map(share_of_owner, asked.owners))
    return [
        row for row in rows if share_of_owner(row.owner) in shares or first in map(share_of_owner, row.owners)
    ]


def ready(
    waiting: Sequence[Row], holding: Sequence[Row], devices: Sequence[str], running_cap: float
) -> Iterator[tuple[Row, str]]:
    """Yield the runs that may start now and where, first come first served.

    A run is passed over while its devices are taken or its owner has enough runs at work.

    Args:
        waiting: The queue in order.
        holding: The runs that hold a device: those at work, and those whose processes are not gone yet.
        devices: All devices.
        running_cap: Runs of one owner at the same time; 0 for any number.
    """
    taken = {row.device or devices[0] for row in holding}
    working = list(holding)
    for row in waiting:
        if taken.issuperset(devices):
            return
        if running_cap and len(of_owner(working, row)) >= running_cap:
            continue
        fitting = usable(_asked(row), devices)
        device = next((name for name in fitting if name not in taken), None)
        if device is not None:
            taken.add(device)
            working.append(row)
            yield row, device


def places(waiting: Sequence[Row], live: Sequence[Row], devices: Sequence[str]) -> dict[str, Place]:
    """Return every waiting run's place by id, each run counted with its time budget."""
    free_in = dict.fromkeys(devices, 0.0)
    for row in live:
        device = row.device or devices[0]
        left = row.eta_seconds if row.eta_seconds >= 0 else _budget(row)
        free_in[device] = max(free_in.get(device, 0.0), left)
    found = {}
    for position, row in enumerate(waiting, 1):
        device = min(usable(_asked(row), devices), key=lambda name: free_in[name], default=None)
        found[row.id] = Place(position, len(waiting), None if device is None else free_in[device])
        if device is not None:
            free_in[device] += _budget(row)
    return found


def _asked(row: Row) -> str:
    return str(row.settings.get("device", "auto"))


def _budget(row: Row) -> float:
    seconds = row.settings.get("budget_seconds", _USUAL_SECONDS)
    return float(seconds) if isinstance(seconds, int | float) else _USUAL_SECONDS
