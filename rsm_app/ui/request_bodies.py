"""Bodies of requests, read whole before anybody looks at them: up to a size, and for seconds only.

JSON takes far more time and memory to read than text of the same size where it is made of many small parts,
so these are counted first.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from starlette.datastructures import Headers
from starlette.formparsers import parse_options_header
from starlette.types import Message, Receive, Scope

PIECE_SECONDS = 10.0  # that the next piece of a body may take
WHOLE_SECONDS = 60.0
MOST_PARTS = 10_000  # lists, objects and their members; the largest form has about a hundred
MOST_FILES = 20  # of one form; a page sends one
SIZE = "rsm_app.body_bytes"  # where the scope of a request has the size of its body
MOST_HELD = 32 * 2**20  # bytes of one owner's bodies that are read at the same time


class RefusedBody(Exception):
    """A body that is not read to its end.

    Attributes:
        status: What HTTP calls the reason.
    """

    def __init__(self, status: int, sentence: str):
        """Say why."""
        super().__init__(sentence)
        self.status = status


class Bodies:
    """Reads bodies, and knows how much of each owner's is on its way."""

    def __init__(self):
        """Begin with nothing."""
        self._held: dict[str, int] = defaultdict(int)

    async def read(self, scope: Scope, receive: Receive, most: int, owner: str) -> Receive:
        """Read a body and return what hands it on.

        Args:
            scope: The request.
            receive: Where it comes from.
            most: Bytes that it may have.
            owner: Who sends it.

        Raises:
            RefusedBody: It is too large or too slow, broke off, or has too many parts, or the owner sends too
                much at once.
        """
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            raise _too_large(most)
        content, until = bytearray(), time.monotonic() + WHOLE_SECONDS
        try:
            while True:
                message = await _next(receive, until)
                piece = message.get("body", b"")
                self._held[owner] += len(piece)
                content += piece
                if len(content) > most:
                    raise _too_large(most)
                if self._held[owner] > MOST_HELD:
                    raise RefusedBody(429, "You send too much at once. Try again in a moment.")
                if not message.get("more_body", False):
                    whole = bytes(content)
                    _refuse_many_parts(scope, whole)
                    scope[SIZE] = len(whole)
                    return _replay(whole, receive)
        finally:
            self._held[owner] -= len(content)
            if self._held[owner] <= 0:
                del self._held[owner]


def _refuse_many_parts(scope: Scope, content: bytes) -> None:
    if not is_form(scope):
        if has_many_parts(content):
            raise RefusedBody(413, f"A request may have at most {MOST_PARTS} values here. Send fewer.")
        return
    _, options = parse_options_header(Headers(scope=scope).get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if boundary and content.count(b"--" + boundary) > MOST_FILES + 1:
        raise RefusedBody(413, f"At most {MOST_FILES} files may be uploaded at once. Send fewer.")


def is_form(scope: Scope) -> bool:
    """Whether a body is a form with files, which is never read as JSON."""
    return Headers(scope=scope).get("content-type", "").startswith("multipart/form-data")


def has_many_parts(content: bytes) -> bool:
    """Whether a body, read as JSON, would become more than ``MOST_PARTS`` values.

    Text in strings is not counted. It takes about 3 ms a megabyte.
    """
    if _count_parts(content) <= MOST_PARTS:
        return False
    if b"\0" in content:  # UTF-16 or UTF-32, where quotes and what escapes them stand apart
        return True
    unescaped = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') > 2 * MOST_PARTS:
        return True
    return _count_parts(b"".join(unescaped.split(b'"')[::2])) > MOST_PARTS


def _count_parts(content: bytes) -> int:
    return sum(map(content.count, (b",", b"[", b"{")))


async def _next(receive: Receive, until: float) -> Message:
    seconds = min(PIECE_SECONDS, until - time.monotonic())
    try:
        message = await asyncio.wait_for(receive(), max(0.0, seconds))
    except TimeoutError:
        raise RefusedBody(408, "The request did not arrive in time. Send it again.") from None
    if message["type"] == "http.disconnect":
        raise RefusedBody(400, "The request broke off.")
    return message


def _replay(content: bytes, receive: Receive) -> Receive:
    """Return what hands a body on once, and then what comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def handed_on() -> Message:
        return waiting.pop() if waiting else await receive()

    return handed_on


def _too_large(most: int) -> RefusedBody:
    return RefusedBody(413, f"A request may have at most {most / 2**20:.0f} MB here. Send less.")
