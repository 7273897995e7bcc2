"""Shares of something that runs out: whose things go when there is too much, and which of them first.

An owner beyond their own share loses their own. When all together are too much, the one with the most loses
first, and nobody who has no more than an equal part: what others keep from being deleted is no reason to
take from them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Holding:
    """One thing that somebody has.

    Attributes:
        id: Its name.
        owner: Whose it is; None for what is nobody's, which counts in the sum only.
        size: What it takes.
        age: Sorts an owner's things, those first that go first.
        removable: Whether it may go at all.
        counted: Whether it counts towards the number of things that an owner may have.
    """

    id: str
    owner: str | None
    size: float
    age: tuple
    removable: bool
    counted: bool = True


@dataclass(frozen=True)
class Shares:
    """How much may be had; 0 is no limit.

    Attributes:
        size: By all together.
        owner_size: By one owner.
        owner_count: Things of one owner.
    """

    size: float = 0.0
    owner_size: float = 0.0
    owner_count: float = 0.0

    def excess(self, holdings: Iterable[Holding]) -> list[Holding]:
        """Return what has to go so that everything fits, in the order in which it goes."""
        everything = list(holdings)
        by_owner: dict[str, _Owner] = defaultdict(_Owner)
        for holding in everything:
            if holding.owner is not None:
                by_owner[holding.owner].add(holding)
        owners = list(by_owner.values())
        for owner in owners:
            owner.sort()
            while owner.removable and self._beyond(owner):
                owner.remove()
        total = sum(holding.size for holding in everything) - sum(owner.removed_size for owner in owners)
        nobodys = sum(holding.size for holding in everything if holding.owner is None)
        fair = max(0.0, self.size - nobodys) / max(1, len(owners))
        while self.size and total > self.size:
            beyond = [owner for owner in owners if owner.removable and owner.size > fair]
            if not beyond:
                break
            total -= max(beyond, key=lambda owner: owner.size).remove().size
        return [holding for owner in owners for holding in owner.removed]

    def _beyond(self, owner: _Owner) -> bool:
        return bool(
            (self.owner_size and owner.size > self.owner_size)
            or (self.owner_count and owner.count > self.owner_count)
        )


class _Owner:
    """What one owner has left."""

    def __init__(self):
        self.size = self.count = self.removed_size = 0.0
        self.removable: list[Holding] = []
        self.removed: list[Holding] = []

    def add(self, holding: Holding) -> None:
        self.size += holding.size
        self.count += holding.counted
        if holding.removable:
            self.removable.append(holding)

    def sort(self) -> None:
        self.removable.sort(key=lambda holding: holding.age, reverse=True)

    def remove(self) -> Holding:
        holding = self.removable.pop()
        self.size -= holding.size
        self.count -= holding.counted
        self.removed_size += holding.size
        self.removed.append(holding)
        return holding
