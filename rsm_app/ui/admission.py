"""Who is let in: so many requests of one owner a second and at once, bodies up to a size, and nothing that no
page needs.

What is refused costs next to nothing, so one visitor keeps others from nothing. Where no limits are set only
bodies are looked at, and what is closed is closed. What is admitted may still have to wait (``fair_queue``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import gradio as gr
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rsm_app.jobs.limits import Limits
from rsm_app.ui.access import share_of
from rsm_app.ui.asgi import answer, path_of
from rsm_app.ui.form import MAX_UPLOAD_BYTES
from rsm_app.ui.rates import Rates
from rsm_app.ui.request_bodies import Bodies, RefusedBody
from rsm_app.ui.sessions import asking

MAX_BODY_BYTES = 4 * MAX_UPLOAD_BYTES  # of a form with as many own prompts as one may bring, in any script
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

    def __init__(self, app: ASGIApp, limits: Limits, uploaded: Callable[[str, list[str]], object]):
        """Wrap an app.

        Args:
            app: The app.
            limits: What one owner may have.
            uploaded: Hears of files that somebody has uploaded, by owner and paths.
        """
        self._app, self._limits, self._uploaded = app, limits, uploaded
        self._rates, self._bodies = Rates(limits.owner_rate), Bodies()
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, owner = path_of(scope), share_of(gr.Request(Request(scope)))
        if path.startswith(_CLOSED):
            await answer(scope, send, 404, _SENTENCES["closed"])
        elif not path.startswith(_FREE) and not self._rates.take(owner):
            await answer(scope, send, 429, _SENTENCES["rate"])
        elif self._limits.owner_requests and self._open[owner] >= self._limits.owner_requests:
            await answer(scope, send, 429, _SENTENCES["open"])
        else:
            await self._admit(scope, receive, send, path, owner)

    async def _admit(self, scope: Scope, receive: Receive, send: Send, path: str, owner: str) -> None:
        self._open[owner] += 1
        token = asking.set(owner)
        try:
            if scope["method"] in _WITH_BODY:
                receive = await self._bodies.read(scope, receive, MAX_BODY_BYTES, owner)
            if path.rstrip("/") == _UPLOAD:
                send = _listening(send, lambda paths: self._uploaded(owner, paths))
            await self._app(scope, receive, send)
        except RefusedBody as refusal:
            await answer(scope, send, refusal.status, str(refusal))
        finally:
            asking.reset(token)
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]


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
