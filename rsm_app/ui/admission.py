"""Who is let in: so many requests of one owner a second and at once, bodies up to a size, and nothing that no
page needs.

What is refused costs next to nothing, so one visitor keeps others from nothing. Where no limits are set only
bodies are looked at, and what is closed is closed. What is admitted may still have to wait (``fair_queue``).
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import gradio as gr
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.owners import NETWORK_SHARES, network_of
from rsm_app.ui.access import share_of
from rsm_app.ui.asgi import answer, path_of
from rsm_app.ui.documents import Documents, LateDocument
from rsm_app.ui.form import MAX_UPLOAD_BYTES
from rsm_app.ui.rates import Rates
from rsm_app.ui.request_bodies import SIZE, Bodies, RefusedBody, is_form
from rsm_app.ui.sessions import asking

MAX_BODY_BYTES = 4 * MAX_UPLOAD_BYTES  # of a form with as many own prompts as one may bring, in any script
_BYTES_OF_A_TOKEN = 100_000  # of a body; reading one of 4 MB takes as long as some ten small requests
_UPLOAD = "/gradio_api/upload"
_WITH_BODY = ("POST", "PUT", "PATCH")
_FREE = ("/assets/", "/static/", "/svelte/", "/theme.css", "/gradio_api/theme.css", "/favicon.ico")
# Gradio's own, that no page of this app uses, and that write files or keep what they are sent.
_CLOSED = (
    "/gradio_api/deep_link",
    "/gradio_api/process_recording",
    "/gradio_api/vibe-",
    "/gradio_api/undo-vibe-",
    "/gradio_api/run-history/",
    "/gradio_api/stream/",
    "/gradio_api/proxy=",
)
_SENTENCES = {
    "rate": "You ask more often than one may here. Wait a few seconds, then go on.",
    "open": "You have more requests open than one may here. Close some pages of this app, then go on.",
    "closed": "There is nothing here.",
}


class Admission:
    """ASGI middleware around Gradio's routes, inside of what knows who has signed in."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        uploaded: Callable[[str, list[str]], object],
        documents: Iterable[str] = (),
    ):
        """Wrap an app.

        Args:
            app: The app.
            limits: What one owner may have.
            uploaded: Hears of files that somebody has uploaded, by owner and paths.
            documents: Paths of the pages and of their descriptions.
        """
        self._app, self._limits, self._uploaded = app, limits, uploaded
        self._rates, self._bodies = Rates(limits.owner_rate), Bodies()
        self._documents = Documents(documents, self._rates)
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, owner = path_of(scope), share_of(gr.Request(Request(scope)))
        if path.startswith(_CLOSED):
            await answer(scope, send, 404, _SENTENCES["closed"])
        elif self._has_enough_open(owner):
            await answer(scope, send, 429, _SENTENCES["open"])
        elif self._limits.owner_rate and self._documents.is_one(path):
            await self._admit_document(scope, receive, send, owner)
        elif not path.startswith(_FREE) and not self._rates.take(owner):
            await answer(scope, send, 429, _SENTENCES["rate"])
        else:
            await self._admit(scope, receive, send, path, owner)

    def _has_enough_open(self, owner: str) -> bool:
        most, network = self._limits.owner_requests, network_of(owner)
        if not most:
            return False
        return self._open[owner] >= most or self._open[network] >= most * NETWORK_SHARES

    @contextlib.contextmanager
    def _counted(self, owner: str) -> Iterator[None]:
        """Count a request as open."""
        names = {owner, network_of(owner)}
        self._open.update(names)
        try:
            yield
        finally:
            self._open.subtract(names)
            for name in names:
                if not self._open[name]:
                    del self._open[name]

    async def _admit_document(self, scope: Scope, receive: Receive, send: Send, owner: str) -> None:
        with self._counted(owner):
            try:
                async with self._documents.turn(owner, network_of(owner), send) as passed_on:
                    await self._pass_on(scope, receive, passed_on, owner)
            except LateDocument:
                await answer(scope, send, 429, _SENTENCES["rate"])

    async def _admit(self, scope: Scope, receive: Receive, send: Send, path: str, owner: str) -> None:
        with self._counted(owner):
            try:
                if scope["method"] in _WITH_BODY:
                    receive = await self._bodies.read(scope, receive, MAX_BODY_BYTES, network_of(owner))
                    if not is_form(scope) and not self._rates.take(owner, scope[SIZE] // _BYTES_OF_A_TOKEN):
                        raise RefusedBody(429, _SENTENCES["rate"])
                if path.rstrip("/") == _UPLOAD:
                    send = _listening(send, lambda paths: self._uploaded(owner, paths))
                await self._pass_on(scope, receive, send, owner)
            except RefusedBody as refusal:
                await answer(scope, send, refusal.status, str(refusal))

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, owner: str) -> None:
        token = asking.set(owner)
        try:
            await self._app(scope, receive, send)
        finally:
            asking.reset(token)


def _listening(send: Send, uploaded: Callable[[list[str]], object]) -> Send:
    """Return what passes an answer on, and tells of the paths that it lists when it was a good one."""
    content, good = bytearray(), False

    async def passed_on(message: Message) -> None:
        nonlocal good
        if message["type"] == "http.response.start":
            good = message["status"] == 200
        else:
            content.extend(message.get("body", b""))
            if good and not message.get("more_body", False):
                uploaded([str(path) for path in json.loads(bytes(content))])
        await send(message)

    return passed_on
