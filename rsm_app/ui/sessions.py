"""What Gradio remembers of every open page: less than it would, and of one owner only so many.

Gradio copies the description of all components into each session (0.7 MB and 40 ms here), for links that
bring a page back as it was. These are closed (``admission``), so sessions begin without one. Beyond their
number an owner's own oldest go, then those of the network (``network_of``) that has most; a page that comes
back begins a new one.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from contextvars import ContextVar
from types import SimpleNamespace

import gradio as gr
from gradio.state_holder import SessionState, StateHolder
from starlette.exceptions import HTTPException

from rsm_app.jobs.owners import network_of

MOST_SESSIONS = 1900  # of all; Gradio keeps messages for 2000 and drops the oldest, whoever is reading them
MOST_CHARACTERS = 200  # of the name of a session, which a page chooses; it is kept in many places
asking: ContextVar[str] = ContextVar("asking", default="")  # the owner whose request is being answered


class Sessions(StateHolder):
    """Gradio's sessions, each known by whose it is."""

    def __init__(self, of_one_owner: float = 0.0):
        """Set how many sessions of one owner are kept; 0 is no limit but that of all."""
        super().__init__()
        self._most = of_one_owner
        self._owners: dict[str, str] = {}
        self._of: dict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)

    def __getitem__(self, session_id: str) -> SessionState:
        """Return a session, a new one if it is not known; it is the asker's unless it is somebody's.

        Raises:
            HTTPException: No page chooses such a name.
        """
        require_name(session_id)
        with self.lock:
            if session_id not in self.session_data:
                self.session_data[session_id] = fresh_session(self.blocks)
            self._touch(session_id, asking.get())
        return super().__getitem__(session_id)

    def claim(self, session_id: str, owner: str) -> None:
        """Note whose session one is before it begins, and make room for it."""
        with self.lock:
            self._touch(session_id, owner)

    def _touch(self, session_id: str, asker: str) -> None:
        known = self._owners.get(session_id)
        if known == "":  # it began before it was known whose it is
            self._of[known].pop(session_id)
        owner = known or asker
        mine = self._of[owner]
        mine[session_id] = None
        mine.move_to_end(session_id)
        self._owners[session_id] = owner
        if self._most and len(mine) > self._most:
            self._drop_first_idle(mine, session_id)
        if len(self._owners) > MOST_SESSIONS:
            self._drop_first_idle(self._of_largest_network(), session_id)

    def _of_largest_network(self) -> list[str]:
        """Return the sessions of the network that has most: of the owner there with most, then of others."""
        networks: dict[str, list[OrderedDict[str, None]]] = defaultdict(list)
        for owner, sessions in self._of.items():
            networks[network_of(owner)].append(sessions)
        largest = max(networks.values(), key=lambda owners: sum(map(len, owners)))
        return [name for sessions in sorted(largest, key=len, reverse=True) for name in sessions]

    def _drop_first_idle(self, sessions: Iterable[str], newest: str) -> None:
        """Drop the first that is not the newest and does not wait for an answer."""
        idle = next((name for name in sessions if name != newest and not self._waits(name)), None)
        if idle is None:
            return
        owner = self._owners.pop(idle)
        del self._of[owner][idle]
        if not self._of[owner]:
            del self._of[owner]
        self.session_data.pop(idle, None)
        self.time_last_used.pop(idle, None)
        self.blocks._queue.pending_messages_per_session.pop(idle, None)
        self.blocks._queue.pending_event_ids_session.pop(idle, None)

    def _waits(self, session_id: str) -> bool:
        queue = self.blocks._queue
        events = queue.pending_event_ids_session.get(session_id, ())
        return any(event in queue.event_ids_to_events for event in tuple(events))


def fresh_session(blocks: gr.Blocks) -> SessionState:
    """Return a fresh session without descriptions of components."""
    return SessionState(SimpleNamespace(default_config=blocks.default_config, blocks=()))


def require_name(session_id: object) -> None:
    """Refuse what is no name of a session.

    Raises:
        HTTPException: It is too long, or no text.
    """
    if not isinstance(session_id, str) or len(session_id) > MOST_CHARACTERS:
        raise HTTPException(400, f"'session_hash' must be text of at most {MOST_CHARACTERS} characters.")
