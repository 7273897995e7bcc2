"""Requests of one conversation with the Hub: never silent, cancelled at once, failures without delay.

``huggingface_hub`` repeats a failed request by itself for half a minute or as long as the Hub asks, and says
so only in a log. Inside ``conversation`` a refusal or a lost connection is raised the moment it happens, so
that whoever leads the conversation decides, tells and can be stopped. Outside it the library repeats as it
does.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

import httpx2
from huggingface_hub import constants
from huggingface_hub.utils import parse_ratelimit_headers

from trainers import hub_client

TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
_LOST = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
_ASKED_TO_WAIT = 429
_present = threading.local()


class Cancelled(Exception):
    """The person took the push back."""


class Lost(Exception):
    """No answer: refused, timed out, or cut off in the middle.

    Attributes:
        refused: Whether there was no connection to begin with.
    """

    def __init__(self, refused: bool):
        self.refused = refused
        super().__init__("refused" if refused else "cut off")


class Refused(Exception):
    """The Hub answered that it cannot do it now.

    Attributes:
        status: 429 or 5xx.
        retry_after: Seconds that the Hub asks to wait; None when it does not say.
    """

    def __init__(self, status: int, retry_after: float | None):
        self.status = status
        self.retry_after = retry_after
        super().__init__(f"HTTP {status}")


class Conversation:
    """What the requests of one thing to be done share: whether it was cancelled."""

    def __init__(self, cancelled: Callable[[], bool] | None = None):
        """Begin; ``cancelled`` is asked before every request and every piece that is sent."""
        self._cancelled = cancelled or (lambda: False)

    def check(self) -> None:
        """Raise ``Cancelled`` when the person took it back."""
        if self._cancelled():
            raise Cancelled

    def join(self) -> None:
        """Let the requests of the present thread belong to this conversation.

        The library sends large files from threads of its own, each of which ends with the upload.
        """
        _present.conversation = self


@contextlib.contextmanager
def conversation(cancelled: Callable[[], bool] | None = None) -> Iterator[Conversation]:
    """Let every request of this thread belong to one conversation while the body runs.

    Args:
        cancelled: Whether the person took it back; when None, as the conversation around this one has it.

    Raises:
        Cancelled, Lost, Refused: From whatever the body asks of ``huggingface_hub``.
    """
    install()
    before = getattr(_present, "conversation", None)
    talk = before if before and not cancelled else Conversation(cancelled)
    _present.conversation = talk
    try:
        yield talk
    finally:
        _present.conversation = before


class _Client(hub_client.HubClient):
    """The library's client, which listens to the present thread's conversation."""

    def send(self, request: httpx2.Request, **options) -> httpx2.Response:
        talk = getattr(_present, "conversation", None)
        if talk is None:
            return super().send(request, **options)
        talk.check()
        short = request.method in ("GET", "HEAD") and not options.get("stream")
        limits = hub_client.ANSWER if short else TIMEOUT
        request.extensions = {**request.extensions, "timeout": limits.as_dict()}
        try:
            response = super().send(request, **options)
        except _LOST as error:
            raise Lost(isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)) from error
        if response.status_code == _ASKED_TO_WAIT or response.status_code >= 500:
            response.close()
            raise Refused(response.status_code, _retry_after(response.headers))
        return response


def _retry_after(headers: httpx2.Headers) -> float | None:
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and not limit.remaining else None


def install() -> None:
    """Make the library's client one that listens, once per process."""
    if hub_client.install(_Client):
        # Files are sent over HTTP on purpose: so they are counted, and stop when the push is cancelled.
        logging.getLogger("huggingface_hub._commit_api").setLevel(logging.ERROR)


def offline() -> bool:
    """Whether the Hub is turned off by ``HF_HUB_OFFLINE``."""
    return constants.is_offline_mode()
