"""Asking a web server for scores: limits on time and size, retries where they can help, one sentence
otherwise.

``server`` and ``judge`` build on it. Torch-free. Redirects are not followed, and nothing that comes back is
ever run. Requests run on a loop in a thread of its own, so that whoever waits for one can leave at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent import futures
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from trainers.errors import FaultError
from trainers.failures import known_cause
from trainers.proxies import is_here

MOST_BYTES = 16 * 2**20
LONGEST_PAUSE = 20.0
MOST_QUOTED = 150  # characters of an endpoint's own explanation
_PAUSE = 0.5
_LOOK = 0.25  # seconds from one look at whether to go on waiting to the next
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # may be over after a while
_NOTHING_LOST = "What was learned and drawn so far is kept; resume the run when the endpoint works again."

Answer = TypeVar("Answer")


class BadAnswer(ValueError):
    """An answer that cannot be used; the text completes "It answered …"."""


class _Trouble(Exception):
    """One attempt that failed.

    ``again`` says whether another may help, ``pause`` for how long to wait, ``status`` and ``told`` what the
    endpoint itself says.
    """

    def __init__(self, words: str, again: bool, pause: float | None = None, status: int = 0, told: str = ""):
        super().__init__(words)
        self.again = again
        self.pause = pause
        self.status = status
        self.told = told


class Endpoint:
    """A server that scores.

    Args:
        name: the reward's, for messages.
        address: http or https; checked already.
        timeout: seconds of one attempt, from the first byte sent to the last received.
        retries: further attempts after a failure that may pass.
        key: sent as a bearer token with every request; never part of a message.
        parallel: requests that are made at the same time at most.

    Raises:
        FaultError: the environment's proxy cannot be used.

    Attributes:
        unpack: reads the explanation of a failure; what it raises means that it is plain text.
        check: called with the seconds waited, several times a second while an answer is awaited; what it
            raises ends the wait.
    """

    def __init__(
        self, name: str, address: str, timeout: float, retries: int, key: str = "", parallel: int = 100
    ):
        self.name = name
        self.address = address
        self.timeout = timeout
        self.retries = retries
        self.unpack: Callable[[bytes], object] = json.loads
        self.check: Callable[[float], None] = lambda seconds: None
        self._key = key
        sent = {"Accept-Encoding": "identity"}  # a small answer must not unpack to a huge one
        limits = httpx.Limits(max_connections=parallel, max_keepalive_connections=parallel)
        try:
            self._client = httpx.AsyncClient(
                timeout=timeout,
                headers=sent | ({"Authorization": f"Bearer {key}"} if key else {}),
                follow_redirects=False,
                limits=limits,
                transport=httpx.AsyncHTTPTransport(limits=limits) if is_here(address) else None,
            )
        except (ImportError, ValueError) as error:
            why = known_cause(error) or type(error).__name__
            raise FaultError(f"The endpoint {shown(address)} of '{name}' cannot be asked. {why}") from error
        self._given_up = threading.Event()

    def post(
        self,
        content: bytes,
        kind: str,
        read: Callable[[bytes], Answer],
        mend: Callable[[str], bytes | None] = lambda told: None,
    ) -> Answer:
        """Send a request until its answer can be read.

        Args:
            content: the body.
            kind: its content type.
            read: turns the answer's body into what is returned; raises ``BadAnswer``.
            mend: gets the endpoint's explanation of a status of 400, and returns a body to send instead.

        Raises:
            FaultError: every attempt failed; the sentence says how the last one did.
        """
        attempts, began = self.retries + 1, time.monotonic()
        for attempt in range(1, attempts + 1):
            try:
                answer = read(self._awaited(self._once(content, kind), began))
                self._given_up.clear()
                return answer
            except _Trouble as trouble:
                words, again, pause, told = str(trouble), trouble.again, trouble.pause, trouble.told
                if trouble.status == 400 and (mended := mend(told)) is not None:
                    return self.post(mended, kind, read)
            except BadAnswer as error:
                words, again, pause, told = f"answered {error}", True, None, ""
            if not again or attempt == attempts or self._given_up.is_set():
                break
            self._rest(min(LONGEST_PAUSE, pause or _PAUSE * 2 ** (attempt - 1)), began)
        self._given_up.set()  # requests beside this one need not try on: the run ends
        tries = "" if attempt == 1 else f" {attempt} times"
        says = f' and says "{told}"' if told else ""
        raise FaultError(
            f"The endpoint {shown(self.address)} of '{self.name}' {words}{tries}{says}. {_NOTHING_LOST}"
        )

    def _awaited(self, request: Coroutine[Any, Any, bytes], began: float) -> bytes:
        """Return what a request brings; it ends at once when the wait does."""
        future = asyncio.run_coroutine_threadsafe(request, _loop(os.getpid()))
        try:
            while not futures.wait((future,), _LOOK).done:
                self.check(time.monotonic() - began)
            return future.result()
        finally:
            future.cancel()

    def _rest(self, seconds: float, began: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._given_up.wait(min(_LOOK, left)):
            self.check(time.monotonic() - began)

    async def _once(self, content: bytes, kind: str) -> bytes:
        try:
            # httpx limits every single read, but not how many of them the headers may take.
            return await asyncio.wait_for(self._exchange(content, kind), self.timeout)
        except (TimeoutError, httpx.TimeoutException):
            raise _Trouble(f"took longer than {self.timeout:g} seconds to answer", again=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            words = " ".join(str(error).split())[:160] or type(error).__name__
            raise _Trouble(f"could not be reached or broke off ({words})", again=True) from None

    async def _exchange(self, content: bytes, kind: str) -> bytes:
        headers = {"Content-Type": kind}
        async with self._client.stream("POST", self.address, content=content, headers=headers) as answer:
            body = await _read(answer)
            if answer.status_code != 200:
                raise _refusal(answer, explanation(body, self._key, self.unpack))
            return body


@lru_cache(maxsize=1)
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """Return the loop of this process; one made before a fork has no thread any more."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="endpoints", daemon=True).start()
    return loop


async def _read(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            raise _Trouble(f"answered with more than {MOST_BYTES // 2**20} MiB", again=False)
    return bytes(body)


def _refusal(answer: httpx.Response, told: str) -> _Trouble:
    code = answer.status_code
    hint = {401: ": its key is missing or wrong", 403: ": its key may not do this", 404: ": nothing is there"}
    pause = None
    with contextlib.suppress(ValueError):
        pause = float(answer.headers.get("Retry-After", ""))
    words = f"answered with status {code}{hint.get(code, '')}"
    return _Trouble(words, code in _PASSING, pause, code, told)


def explanation(body: bytes, key: str = "", unpack: Callable[[bytes], object] = json.loads) -> str:
    """Return the beginning of what an endpoint says about a failure, on one line; empty for web pages.

    Args:
        body: the answer.
        key: what must not be repeated.
        unpack: reads it where it is more than plain text.
    """
    text = body.decode("utf-8", errors="replace")
    try:
        text = _message(unpack(body)) or text
    except Exception:  # whatever broken bytes make a reader raise
        text = "" if text.lstrip().startswith("<") else text
    text = "".join(letter if letter.isprintable() and letter != "\ufffd" else " " for letter in text)
    text = " ".join((text.replace(key, "…") if key else text).split())
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…"


_EXPLAINED = ("error", "message", "detail", "traceback")


def _message(record: Any) -> str:
    """Return the sentence in the usual forms of an error; empty where there is none."""
    while isinstance(record, dict):
        record = next((record[name] for name in _EXPLAINED if name in record), None)
    return record if isinstance(record, str) else ""


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
    if parts.query or parts.fragment or address.endswith(("?", "#")):
        return [
            f"'{setting}' must end before any '?' or '#': a path is added to it, and a key in it would be "
            "stored with the run; put a key into an environment variable instead."
        ]
    return []


def shown(address: str) -> str:
    """Return an address as messages show it: without what may be secret."""
    parts = urlsplit(address)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def _single(value: object) -> object:
    """Return the one number of a list of one, as models with one output answer; anything else as it is."""
    return (
        value[0] if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1 else value
    )


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
        numbers = [float(_single(value)) for value in values]
    except (TypeError, ValueError):
        raise BadAnswer("with scores that are no numbers") from None
    bad = next((number for number in numbers if not math.isfinite(number)), None)
    if bad is not None:
        raise BadAnswer(f"with the score {bad}")
    return numbers
