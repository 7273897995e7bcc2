"""Asking a web server for scores: limits on time and size, retries where they can help, one sentence
otherwise.

``server`` and ``judge`` build on it. Torch-free. Redirects are not followed, and nothing that comes back is
ever run.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from trainers.errors import FaultError

MOST_BYTES = 16 * 2**20
LONGEST_PAUSE = 20.0
_PAUSE = 0.5
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # may be over after a while
_NOTHING_LOST = "What was learned and drawn so far is kept; resume the run when the endpoint works again."

Answer = TypeVar("Answer")


class BadAnswer(ValueError):
    """An answer that cannot be used; the text completes "It answered …"."""


class _Trouble(Exception):
    """One attempt that failed; ``again`` says whether another may help, ``pause`` for how long to wait."""

    def __init__(self, words: str, again: bool, pause: float | None = None):
        super().__init__(words)
        self.again = again
        self.pause = pause


class Endpoint:
    """A server that scores.

    Args:
        name: the reward's, for messages.
        address: http or https; checked already.
        timeout: seconds of one attempt, from the first byte sent to the last received.
        retries: further attempts after a failure that may pass.
        headers: sent with every request; never part of a message.
    """

    def __init__(
        self, name: str, address: str, timeout: float, retries: int, headers: Mapping[str, str] | None = None
    ):
        self.name = name
        self.address = address
        self.timeout = timeout
        self.retries = retries
        sent = {
            "Accept-Encoding": "identity",
            **(headers or {}),
        }  # a small answer must not unpack to a huge one
        self._client = httpx.Client(timeout=timeout, headers=sent, follow_redirects=False)
        self._given_up = threading.Event()

    def post(self, content: bytes, kind: str, read: Callable[[bytes], Answer]) -> Answer:
        """Send a request until its answer can be read.

        Args:
            content: the body.
            kind: its content type.
            read: turns the answer's body into what is returned; raises ``BadAnswer``.

        Raises:
            FaultError: every attempt failed; the sentence says how the last one did.
        """
        attempts = self.retries + 1
        for attempt in range(1, attempts + 1):
            try:
                answer = read(self._once(content, kind))
                self._given_up.clear()
                return answer
            except _Trouble as trouble:
                words, again, pause = str(trouble), trouble.again, trouble.pause
            except BadAnswer as error:
                words, again, pause = f"answered {error}", True, None
            if not again or attempt == attempts or self._given_up.is_set():
                break
            self._given_up.wait(min(LONGEST_PAUSE, pause or _PAUSE * 2 ** (attempt - 1)))
        self._given_up.set()  # requests beside this one need not try on: the run ends
        tries = "" if attempt == 1 else f" {attempt} times"
        raise FaultError(
            f"The endpoint {shown(self.address)} of '{self.name}' {words}{tries}. {_NOTHING_LOST}"
        )

    def _once(self, content: bytes, kind: str) -> bytes:
        deadline = time.monotonic() + self.timeout
        try:
            with self._client.stream(
                "POST", self.address, content=content, headers={"Content-Type": kind}
            ) as answer:
                body = _read(answer, deadline, self.timeout)
                if answer.status_code != 200:
                    raise _refusal(answer, body)
                return body
        except httpx.TimeoutException:
            raise _slow(self.timeout) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            words = " ".join(str(error).split())[:160] or type(error).__name__
            raise _Trouble(f"could not be reached or broke off ({words})", again=True) from None


def _read(answer: httpx.Response, deadline: float, timeout: float) -> bytes:
    body = bytearray()
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            raise _Trouble(f"answered with more than {MOST_BYTES // 2**20} MiB", again=False)
        if time.monotonic() > deadline:
            raise _slow(timeout)
    return bytes(body)


def _slow(timeout: float) -> _Trouble:
    return _Trouble(f"took longer than {timeout:g} seconds to answer", again=True)


def _refusal(answer: httpx.Response, body: bytes) -> _Trouble:
    code = answer.status_code
    hint = {401: ": its key is missing or wrong", 403: ": its key may not do this", 404: ": nothing is there"}
    pause = None
    with contextlib.suppress(ValueError):
        pause = float(answer.headers.get("Retry-After", ""))
    return _Trouble(f"answered with status {code}{hint.get(code, '')}", code in _PASSING, pause)


def address_problems(setting: str, address: str) -> list[str]:
    """Return a sentence if an address cannot be used.

    Args:
        setting: where it was given.
        address: the address.
    """
    try:
        parts = urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        return [f"'{setting}' must be an address such as http://127.0.0.1:18085, not '{address[:80]}'."]
    if parts.username or parts.password:
        return [f"'{setting}' holds a name or password; put a key into an environment variable instead."]
    return []


def shown(address: str) -> str:
    """Return an address as messages show it: without what may be secret."""
    parts = urlsplit(address)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def checked_scores(values: object, count: int) -> list[float]:
    """Return scores as numbers.

    Raises:
        BadAnswer: they are not ``count`` finite numbers.
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise BadAnswer("with scores that are no list")
    if len(values) != count:
        raise BadAnswer(f"with {len(values)} scores for {count} pictures")
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise BadAnswer("with scores that are no numbers") from None
    bad = next((number for number in numbers if not math.isfinite(number)), None)
    if bad is not None:
        raise BadAnswer(f"with the score {bad}")
    return numbers
