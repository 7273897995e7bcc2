"""Turns of documents: pages and their descriptions take as long to make as many other answers.

Few of one network are made at the same time, and only as many as a part of its rate allows; the others wait,
so that who opens many tabs gets them all, a little later. What is left of the rate is for what pages ask.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from starlette.types import Message, Send

from rsm_app.ui.rates import Rates

COST = 20  # requests of other kinds that take as long
AT_ONCE = 2  # of one network
WAIT_SECONDS = 30.0
_KEPT = 0.5  # of a full bucket, that documents leave to other requests
_AGAIN_SECONDS = 0.05


class LateDocument(Exception):
    """A document whose turn did not come in time."""


class Documents:
    """Knows which paths are documents, and whose turn it is."""

    def __init__(self, paths: Iterable[str], rates: Rates):
        """Begin with nobody waiting.

        Args:
            paths: Of all documents, within the app.
            rates: Where their cost is taken from.
        """
        self._paths = frozenset(path.rstrip("/") for path in paths)
        self._rates = rates
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    def is_one(self, path: str) -> bool:
        """Whether a path is a document's."""
        return path.rstrip("/") in self._paths

    @contextlib.asynccontextmanager
    async def turn(self, owner: str, network: str, send: Send) -> AsyncIterator[Send]:
        """Wait for a turn, which ends when the document is made: who reads slowly keeps nobody waiting.

        Args:
            owner: Whose rate it is taken from.
            network: Whose documents take turns.
            send: Where the answer goes.

        Raises:
            LateDocument: It took too long.
        """
        turns = self._turns.setdefault(network, asyncio.Semaphore(AT_ONCE))
        self._users[network] = self._users.get(network, 0) + 1
        held = False

        async def passed_on(message: Message) -> None:
            nonlocal held
            if held and message["type"] == "http.response.body":
                turns.release()
                held = False
            await send(message)

        try:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    held = await turns.acquire()
                    while not self._rates.take(owner, COST, _KEPT):
                        await asyncio.sleep(_AGAIN_SECONDS)
            except TimeoutError as error:
                raise LateDocument from error
            yield passed_on
        finally:
            if held:
                turns.release()
            self._leave(network)

    def _leave(self, network: str) -> None:
        self._users[network] -= 1
        if not self._users[network]:
            del self._users[network], self._turns[network]
