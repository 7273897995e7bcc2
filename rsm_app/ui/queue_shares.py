"""Whose event gives way when too many wait, and whose answers go when too many are fetched by nobody.

Of a wider network (``network_of``) all owners count together here: whoever has most, with however many
addresses, is the one that gives way, and the newest first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping

from gradio.queueing import AsyncQueue, Event

from rsm_app.jobs.owners import network_of

_LOOKS = 100  # answers after which those of all owners together are counted again


def owner_of_event(event: Event) -> str:
    """Return whose an event is."""
    return getattr(event, "owner", "")


def size_of(event: Event) -> int:
    """Return the bytes that an event was sent with."""
    return getattr(event, "size", 0)


def who_gives_way(
    events: Iterable[Event], owner: str, weight: Callable[[Event], int], added: int
) -> Event | None:
    """Return the event that gives way to a new one; None when nobody has more than its network then.

    Args:
        events: All that wait for the same places.
        owner: Whose the new one is.
        weight: What an event takes.
        added: What the new one takes.
    """
    taken: Counter[str] = Counter()
    newest: dict[str, Event] = {}
    for event in filter(weight, events):
        network = network_of(owner_of_event(event))
        taken[network] += weight(event)
        if network not in newest or event.enqueue_time >= newest[network].enqueue_time:
            newest[network] = event
    most = max(taken, key=taken.__getitem__, default="")
    return None if taken[network_of(owner)] + added >= taken[most] else newest[most]


class UnreadAnswers:
    """Counts answers that lie in sessions until somebody fetches them."""

    def __init__(self, messages: Mapping[str, AsyncQueue], of_one: float, of_all: int):
        """Begin with none.

        Args:
            messages: Those of each session, which leave it when they are fetched.
            of_one: How many one owner may have; 0 is no limit.
            of_all: How many all together may have.
        """
        self._messages, self._of_one, self._of_all = messages, of_one, of_all
        self._sessions: dict[str, OrderedDict[str, int]] = defaultdict(OrderedDict)
        self._noted = 0

    def note(self, session: str, owner: str) -> list[str]:
        """Take up that a session of an owner has got an answer; return sessions that have to be forgotten."""
        mine = self._sessions[owner]
        mine[session] = mine.get(session, 0) + 1
        gone = []
        count = self._count(owner)
        while self._of_one and count > self._of_one:
            name, answers = mine.popitem(last=False)
            count -= answers
            gone.append(name)
        self._noted += 1
        return gone + (self._beyond_all() if self._noted % _LOOKS == 0 else [])

    def _count(self, owner: str) -> int:
        mine = self._sessions[owner]
        for session in tuple(mine):
            queue = self._messages.get(session)
            mine[session] = min(mine[session], queue.qsize() if queue is not None else 0)
            if not mine[session]:
                del mine[session]
        return sum(mine.values())

    def _beyond_all(self) -> list[str]:
        counts = {owner: self._count(owner) for owner in tuple(self._sessions)}
        networks: Counter[str] = Counter()
        for owner, count in counts.items():
            networks[network_of(owner)] += count
            if not count:
                del self._sessions[owner]
        gone = []
        while networks.total() > self._of_all:
            network = max(networks, key=networks.__getitem__)
            owners = (owner for owner in self._sessions if network_of(owner) == network)
            owner = max(owners, key=lambda name: sum(self._sessions[name].values()))
            session, answers = self._sessions[owner].popitem(last=False)
            networks[network] -= answers
            gone.append(session)
        return gone
