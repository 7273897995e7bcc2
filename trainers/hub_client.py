"""The client of ``huggingface_hub`` as this project uses it: a silent or slow Hub keeps nobody for ever.

The library's own client waits as long as it takes. Here an answer must begin within seconds and be whole soon
after, downloads excepted; and a Hub on this machine is asked without a proxy. Torch-free.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import httpx2
from huggingface_hub import get_session, set_client_factory

ANSWER = httpx2.Timeout(20.0, connect=10.0)  # between two pieces of an answer
WHOLE_SECONDS = 40.0  # of an answer that is read as a whole; downloads are read in pieces
_LOOPBACK = ("all://localhost", "all://127.0.0.1", "all://[::1]")  # no proxy reaches this machine
_installing = threading.Lock()
_installed: type[httpx2.Client] | None = None


class HubClient(httpx2.Client):
    """A client whose answers end."""

    def send(self, request: httpx2.Request, *, stream: bool = False, **options) -> httpx2.Response:
        """Send a request; an answer that is not asked for in pieces is read within ``WHOLE_SECONDS``."""
        response = super().send(request, stream=True, **options)
        if stream:
            return response
        response.stream = _Ending(response.stream, request, time.monotonic() + WHOLE_SECONDS)
        try:
            response.read()
        except BaseException:
            response.close()
            raise
        return response


class _Ending(httpx2.SyncByteStream):
    """The pieces of an answer, until its time is up."""

    def __init__(self, pieces: httpx2.SyncByteStream, request: httpx2.Request, end: float):
        self._pieces, self._request, self._end = pieces, request, end

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if time.monotonic() > self._end:
                raise httpx2.ReadTimeout("The answer takes too long.", request=self._request)
            yield piece

    def close(self) -> None:
        self._pieces.close()


def install(client: type[HubClient] = HubClient) -> bool:
    """Let ``huggingface_hub`` use a client in this process; return whether it did not before.

    A class that another one was derived from does not take its place again.
    """
    global _installed
    with _installing:
        if _installed is not None and issubclass(_installed, client):
            return False
        try:
            hooks = get_session().event_hooks  # the library's own: offline mode, request ids
        except (ImportError, ValueError):  # the environment's proxy cannot be used, as each request will say
            return False
        set_client_factory(_factory(client, hooks))
        _installed = client
        return True


def _factory(client: type[HubClient], hooks: dict) -> Callable[[], httpx2.Client]:
    def make() -> httpx2.Client:
        direct = dict.fromkeys(_LOOPBACK)
        return client(event_hooks=hooks, follow_redirects=True, timeout=ANSWER, mounts=direct)

    return make
