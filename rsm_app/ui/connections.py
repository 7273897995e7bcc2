"""Connections that ask for nothing end: uvicorn waits for the head of a request for as long as it takes.

Its own timeout begins after an answer. Bodies are ``request_bodies``' to wait for.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 10.0
MOST_SILENT = 500  # connections of all visitors that have not asked yet; beyond it the oldest are closed


class Connection(AutoHTTPProtocol):
    """A connection that is closed unless a whole head arrives in time, the first one and each later one."""

    _silent: dict[Connection, None] = {}  # of this process, the oldest first
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting until what has arrived is a request, or the rest of one."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._timer is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._close)
        self._silent[self] = None
        while len(self._silent) > MOST_SILENT:
            next(iter(self._silent))._close()

    def _stop_waiting(self) -> None:
        self._silent.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._stop_waiting()
        if not self.transport.is_closing() and self.transport.get_protocol() is self:
            self.transport.close()
