"""Gradio's queue of events, in which owners take turns: who has a hundred events waiting does not keep others
from being next.

Of each kind (``concurrency_id``) the event of the owner is next who has fewest at work and waited longest for
a turn. Where visitors share a machine, one owner has at most half of a kind's places, and only so many events
waiting. All kinds together have more places than the costly ones can take (``costly``), so looking, starting
and stopping always find one.
"""

from __future__ import annotations

import random
import time
from collections import Counter

import gradio as gr
from gradio.queueing import Event, EventQueue, Queue
from starlette.exceptions import HTTPException
from starlette.requests import Request

from rsm_app.jobs.limits import Limits
from rsm_app.ui.access import share_of
from rsm_app.ui.sessions import Sessions

_MOST_OWNERS = 10000
_AGAIN_SECONDS = (
    0.05  # after which a queue that is stuck is looked through though nothing seems to have changed
)
_TOO_MANY = (
    "You have {:g} requests waiting here already, as many as one may have. Wait until some are answered, "
    "then go on."
)


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
        self._most = limits.owner_events
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._changes, self._stuck_at, self._again = 0, -1, 0.0

    async def push(self, body, request: Request, username: str | None):
        """Take up an event, unless its owner has enough waiting.

        Raises:
            HTTPException: They have: 429 with a sentence.
        """
        owner = share_of(gr.Request(request))
        if self._most and self._waiting(owner) >= self._most:
            raise HTTPException(429, _TOO_MANY.format(self._most), {"Retry-After": "5"})
        alone = body.session_hash is None
        answer = await super().push(body, request, username)
        self._changes += 1
        event = self.event_ids_to_events.get(answer[1]) if answer[0] else None
        if event is not None:
            event.owner, event.alone = owner, alone
            if isinstance(sessions := self.blocks.state_holder, Sessions):
                sessions.claim(event.session_hash, owner)
        return answer

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
                    self._note_turn(_owner(event))
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
            first.setdefault(_owner(event), event)
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
        return Counter(_owner(event) for event in jobs if kind in (None, event.concurrency_id))

    def _waiting(self, owner: str) -> int:
        queues = self.event_queue_per_concurrency_id.values()
        return sum(_owner(event) == owner for queue in queues for event in queue.queue)


def _owner(event: Event) -> str:
    return getattr(event, "owner", "")
