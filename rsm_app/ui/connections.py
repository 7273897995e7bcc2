"""Connections that ask for nothing end, and all together leave the process files to work with.

uvicorn waits for the head of a request for as long as it takes; its own timeout begins after an answer.
Bodies are ``request_bodies``' to wait for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from rsm_app.ui.access import share_of_address
from rsm_app.ui.open_files import MOST_CONNECTIONS

HEAD_SECONDS = 10.0
MOST_SILENT = 500  # connections of all visitors that have not asked yet; beyond it the oldest are closed


class Connection(AutoHTTPProtocol):
    """A connection that is closed unless a whole head arrives in time, the first one and each later one.

    Beyond ``most`` connections the oldest of whoever has most of them is closed. Whose one is, its last
    request says; until the first one it is its socket's address'.
    """

    most = MOST_CONNECTIONS  # of all visitors together; what starts the server sets it
    _silent: dict[Connection, None] = {}  # of this process, the oldest first
    _open: dict[str, OrderedDict[Connection, None]] = defaultdict(OrderedDict)
    _count = 0
    _said = False
    _timer: asyncio.TimerHandle | None = None
    _owner: str | None = None
    _asked: object = None  # the last request that was looked at

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._note({"type": "http", "client": self.client, "headers": ()})
        self._wait()
        while Connection._count > self.most:
            self._close_one()

    def data_received(self, data: bytes) -> None:
        """Go on waiting until what has arrived is a request, or the rest of one."""
        super().data_received(data)
        if self.cycle is not self._asked:
            self._asked = self.cycle
            self._note(self.cycle.scope)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._timer is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        self._forget()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, *_: object) -> None:
        """Refuse: no page has a web socket, and another protocol would know no limit of this one."""
        self.send_400_response("This app has no web sockets.")

    def _note(self, scope: dict) -> None:
        """Note whose the connection is, as the newest of theirs; one that was closed stays forgotten."""
        if self.transport.is_closing():
            return
        self._forget()
        self._owner = share_of_address(scope)
        self._open[self._owner][self] = None
        Connection._count += 1

    def _forget(self) -> None:
        if self._owner is None:
            return
        own = self._open[self._owner]
        del own[self]
        if not own:
            del self._open[self._owner]
        self._owner = None
        Connection._count -= 1

    def _close_one(self) -> None:
        if not Connection._said:
            Connection._said = True
            logging.getLogger(__name__).warning(
                "%d connections are open, as many as leave files for other work: from now on the oldest of "
                "whoever has most are closed. For more visitors raise the limit of open files (ulimit -n).",
                self.most,
            )
        oldest = next(iter(max(self._open.values(), key=len)))
        oldest._stop_waiting()
        oldest._forget()
        oldest.transport.abort()  # a close would wait for whoever does not read

    def _wait(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._close)
        self._silent[self] = None
        while len(self._silent) > min(MOST_SILENT, self.most):
            next(iter(self._silent))._close()

    def _stop_waiting(self) -> None:
        self._silent.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self.transport.close()
