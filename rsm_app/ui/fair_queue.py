"""Gradio's queue of events, in which owners take turns: who has a hundred events waiting does not keep others
from being next.

Of each kind (``concurrency_id``) the event of the owner is next who has fewest at work and waited longest for
a turn. Where visitors share a machine, one owner has at most half of a kind's places, and only so many events
waiting. All kinds together have more places than the costly ones can take (``costly``), so looking, starting
and stopping always find one; and when the queue is full, or costly ones fill half of it, whoever has most
waiting gives way to who has less (``queue_shares``).
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

import gradio as gr
from gradio.queueing import Event, EventQueue, Queue
from gradio.server_messages import (
    EstimationMessage,
    EventMessage,
    ProcessCompletedMessage,
    ProcessGeneratingMessage,
    ProgressMessage,
)
from gradio.utils import LRUCache
from starlette.exceptions import HTTPException
from starlette.requests import Request

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.owners import NETWORK_SHARES, network_of
from rsm_app.ui.access import share_of
from rsm_app.ui.queue_shares import UnreadAnswers, owner_of_event, size_of, who_gives_way
from rsm_app.ui.request_bodies import SIZE
from rsm_app.ui.sessions import Sessions, require_name

_MOST_OWNERS = 10000
# After which a queue that is stuck is looked through though nothing seems to have changed.
_AGAIN_SECONDS = 0.05
MOST_BYTES, MOST_BYTES_OF_ONE = 256 * 2**20, 32 * 2**20  # of what waiting events were sent with
MOST_UNREAD = 1000  # answers of all sessions
_MOST_NOTICES = 20  # unread messages of a session beyond which it is told no more how it stands
_TOO_MANY = (
    "You have {:g} requests waiting here already, as many as one may have. Wait until some are answered, "
    "then go on."
)
_TOO_LARGE = "Your requests that wait here are large. Wait until some are answered, then go on."
_FULL = "Very many requests are waiting here. Try again in a moment."
_GAVE_WAY = "Very many requests are waiting here, and most are of your network. Try again in a moment."


class _Messages(LRUCache):
    """The messages of each session; a stream that ends forgets them though another one may have done so."""

    def __delitem__(self, session: str) -> None:
        if session in self:
            super().__delitem__(session)


class FairQueue(Queue):
    """The queue of one app."""

    def __init__(self, limits: Limits, plain: Queue):
        """Take the place of a queue that Gradio has made and that has not begun."""
        super().__init__(
            live_updates=plain.live_updates,
            concurrency_count=plain.max_thread_count,
            update_intervals=plain.update_intervals,
            max_size=plain.max_size,
            blocks=plain.blocks,
            default_concurrency_limit=plain.default_concurrency_limit,
        )
        self.pending_messages_per_session = _Messages(self.pending_messages_per_session.max_size)
        self._most = limits.owner_events
        self._unread = UnreadAnswers(self.pending_messages_per_session, self._most, MOST_UNREAD)
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._changes, self._stuck_at, self._again = 0, -1, 0.0

    async def push(self, body, request: Request, username: str | None):
        """Take up an event, unless its owner has enough waiting.

        Raises:
            HTTPException: They have, 429, or the queue is full of others', 503, or the name of the session is
                none, 400; with a sentence.
        """
        if body.session_hash is not None:
            require_name(body.session_hash)
        owner, size = share_of(gr.Request(request)), request.scope.get(SIZE, 0)
        if self._most:
            self._refuse_beyond_share(owner, size)
            self._make_room(body.fn_index, owner, size)
        alone = body.session_hash is None
        answer = await super().push(body, request, username)
        self._changes += 1
        event = self.event_ids_to_events.get(answer[1]) if answer[0] else None
        if event is not None:
            event.owner, event.alone, event.size = owner, alone, size
            if isinstance(sessions := self.blocks.state_holder, Sessions):
                sessions.claim(event.session_hash, owner)
        return answer

    def _refuse_beyond_share(self, owner: str, size: int) -> None:
        network, waiting = network_of(owner), self._waiting()
        mine = [event for event in waiting if owner_of_event(event) == owner]
        if len(mine) >= self._most:
            raise _refusal(429, _TOO_MANY.format(self._most))
        if size and sum(map(size_of, mine)) + size > MOST_BYTES_OF_ONE:
            raise _refusal(429, _TOO_LARGE)
        near = sum(network_of(owner_of_event(event)) == network for event in waiting)
        if near >= self._most * NETWORK_SHARES:
            raise _refusal(429, _GAVE_WAY)

    def _make_room(self, number: int | None, owner: str, size: int) -> None:
        """Let others' newest events give way where a new one would find no room."""
        fn = self.blocks.fns.get(number)
        if self.max_size:
            if fn is not None and fn.concurrency_limit is not None:
                self._give_way(lambda: self._waiting(costly=True), owner, self.max_size // 2)
            self._give_way(self._waiting, owner, self.max_size)
        self._give_way(self._waiting, owner, MOST_BYTES, size_of, size)

    def _give_way(
        self,
        waiting: Callable[[], list[Event]],
        owner: str,
        most: float,
        weight: Callable[[Event], int] = lambda _: 1,
        added: int = 1,
    ) -> None:
        while (events := waiting()) and sum(map(weight, events)) + added > most:
            event = who_gives_way(events, owner, weight, added)
            if event is None:
                raise _refusal(503, _FULL)
            self.event_queue_per_concurrency_id[event.concurrency_id].queue.remove(event)
            self.event_ids_to_events.pop(event._id, None)
            self.send_message(event, ProcessCompletedMessage(output={"error": _GAVE_WAY}, success=False))

    def send_message(self, event: Event, event_message: EventMessage) -> None:
        """Put a message where a session fetches it; what nobody fetches is not kept beyond a share."""
        messages = self.pending_messages_per_session.get(event.session_hash)
        if messages is None:  # forgotten
            return
        notice = isinstance(event_message, EstimationMessage | ProgressMessage)
        if notice and messages.qsize() >= _MOST_NOTICES:
            return
        super().send_message(event, event_message)
        if isinstance(event_message, ProcessCompletedMessage | ProcessGeneratingMessage):
            for session in self._unread.note(event.session_hash, owner_of_event(event)):
                self.pending_messages_per_session.pop(session, None)
                self.pending_event_ids_session.pop(session, None)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """Return the next event of a kind that has a free place; Gradio asks a thousand times a second."""
        now = time.monotonic()
        if self._stuck_at == self._changes and now < self._again:
            return None
        kinds = list(self.event_queue_per_concurrency_id.items())
        random.shuffle(kinds)
        for kind, queue in kinds:
            limit = queue.concurrency_limit
            if queue.queue and (limit is None or queue.current_concurrency < limit):
                event = self._next(queue)
                if event is not None:
                    queue.queue.remove(event)
                    self._note_turn(owner_of_event(event))
                    return [event], False, kind
        self._stuck_at, self._again = self._changes, now + _AGAIN_SECONDS
        return None

    async def process_events(self, events: list[Event], batch: bool, begin_time: float, fn) -> None:
        """Answer events; the session of a call that belongs to no page ends with it."""
        try:
            await super().process_events(events, batch, begin_time, fn)
        finally:
            self._changes += 1
            for event in events:
                if getattr(event, "alone", False):
                    self.blocks.state_holder.session_data.pop(event.session_hash, None)

    def _note_turn(self, owner: str) -> None:
        self._turn += 1
        self._turns.pop(owner, None)
        self._turns[owner] = self._turn
        if len(self._turns) > _MOST_OWNERS:
            del self._turns[next(iter(self._turns))]

    def _next(self, queue: EventQueue) -> Event | None:
        first: dict[str, Event] = {}
        for event in queue.queue:
            first.setdefault(owner_of_event(event), event)
        limit = queue.concurrency_limit
        at_work = self._at_work(None if limit is None else queue.concurrency_id)
        if self._most:
            half = -(-(limit or self.max_thread_count) // 2)
            first = {owner: event for owner, event in first.items() if at_work[owner] < half}
        if not first:
            return None
        return first[min(first, key=lambda owner: (at_work[owner], self._turns.get(owner, 0)))]

    def _at_work(self, kind: str | None) -> Counter[str]:
        """Count the events of each owner that are being answered, of one kind or of all."""
        jobs = (event for job in self.active_jobs if job for event in job)
        return Counter(owner_of_event(event) for event in jobs if kind in (None, event.concurrency_id))

    def _waiting(self, costly: bool = False) -> list[Event]:
        """Return the events that wait, of all kinds or of those with a limit."""
        queues = self.event_queue_per_concurrency_id.values()
        return [
            event
            for queue in queues
            if not (costly and queue.concurrency_limit is None)
            for event in queue.queue
        ]


def _refusal(status: int, sentence: str) -> HTTPException:
    return HTTPException(status, sentence, {"Retry-After": "5"})
