"""Only this app's own pages act and read as their visitor: a page of any other address is refused.

A browser sends a visitor's cookies and comes from a visitor's address, whichever page makes it ask. What it
says of that page, no page can change: ``Sec-Fetch-Site`` where the app has https or is on this machine, and
``Origin`` for whatever is more than a plain link. Programs say neither and go on. Documents and their scripts
are open to a link from anywhere, but no foreign page reads even them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from rsm_app.jobs.places import on_space
from rsm_app.ui.asgi import App, Receive, Scope, Send, answer, path_of
from rsm_app.ui.hosts import Authority, line_of, lines_of, parse_host, parse_origin
from rsm_app.ui.proxies import NAMED, forwarded, from_named_proxy
from trainers.terminal import printable

_OWN = ("same-origin", "none")  # of Sec-Fetch-Site; none is an address that somebody typed
_OPEN_FOLDERS = ("/assets/", "/static/", "/svelte/", "/gradio_api/custom_component/", "/login/")
_OPEN_FILES = ("/favicon.ico", "/theme.css", "/gradio_api/theme.css", "/robots.txt", "/manifest.json")
_OPEN_ICON = "/pwa_icon"
_FILE = "/gradio_api/file="
_LONGEST_SHOWN = 200
_MOST_LOGGED = 100
_USUAL_PORTS = (80, 443)


class SameOrigin:
    """ASGI middleware; around everything else, so that nothing inside answers a foreign page first."""

    def __init__(self, app: App, pages: tuple[str, ...] = ("/",)):
        """Wrap an app.

        Args:
            app: The app.
            pages: The paths of its documents.
        """
        self._app, self._pages = app, frozenset(pages)
        self._logged: set[tuple[str, str]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 403 and a sentence."""
        if scope["type"] not in ("http", "websocket") or not is_foreign(scope):
            await self._app(scope, receive, send)
        elif self._is_open(scope):
            # Without an Origin Gradio lets no page read its answer.
            own = [(name, value) for name, value in scope["headers"] if name.lower() != b"origin"]
            await self._app({**scope, "headers": own}, receive, send)
        else:
            await self._refuse(scope, send)

    def _is_open(self, scope: Scope) -> bool:
        """Whether a request is for a document or what it is made of, or for a file that is opened itself."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return False
        path, fetched = path_of(scope), (line_of(scope, "sec-fetch-mode"), line_of(scope, "sec-fetch-dest"))
        opened = fetched == ("navigate", "document")
        return (
            path in self._pages
            or path.rstrip("/") in self._pages
            or path.startswith(_OPEN_FOLDERS)
            or path in _OPEN_FILES
            or path == _OPEN_ICON
            or path.startswith(f"{_OPEN_ICON}/")
            or (opened and path.startswith(_FILE))
        )

    async def _refuse(self, scope: Scope, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        sentence = _sentence(scope)
        self._log(scope, sentence)
        await answer(scope, send, 403, sentence)

    def _log(self, scope: Scope, sentence: str) -> None:
        """Say once for each pair of addresses what was refused: it may be a proxy that is set up wrongly."""
        pair = (_said(scope, "origin"), _said(scope, "host"))
        if pair not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(pair)
            logging.getLogger(__name__).warning("%s", sentence)


def is_foreign(scope: Scope) -> bool:
    """Whether a request was made by a page of another address than the one that it asks for."""
    site, origin = line_of(scope, "sec-fetch-site"), line_of(scope, "origin")
    if site is not None:
        return site not in _OWN
    return origin is not None and not _is_own(origin, scope)


def _is_own(origin: str, scope: Scope) -> bool:
    asking = parse_origin(origin)
    return asking is not None and any(_same(asking, asked, scope) for asked in _asked_for(scope))


def _asked_for(scope: Scope) -> Iterator[Authority]:
    """Yield the addresses that this app has for whoever makes a request.

    A page cannot write the headers of a proxy without asking first, which a foreign one does in vain.
    """
    texts = lines_of(scope, "host")[:1]
    if from_named_proxy(scope):
        texts += ",".join(lines_of(scope, "x-forwarded-host")).split(",")
    if on_space():
        texts += os.environ.get("SPACE_HOST", "").split(",")
    texts.append(urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).netloc)
    yield from filter(None, map(parse_host, texts))


def _same(asking: Authority, asked: Authority, scope: Scope) -> bool:
    """Whether two addresses are one; a proxy on the way may have lost the port, or put its own there."""
    if asking.name != asked.name:
        return False
    here = (scope.get("server") or ("", None))[1]
    if forwarded(scope) or (asked.port is None and here not in _USUAL_PORTS):
        return True
    return asking.port in _USUAL_PORTS if asked.port is None else asking.port == asked.port


def _sentence(scope: Scope) -> str:
    return (
        f"Refused: a page of {_said(scope, 'origin') or 'another address'} asked for this app at "
        f"{_said(scope, 'host') or 'an unknown address'}. Open the app itself to use it. If both are this "
        "app, it is behind a proxy: let that pass on the Host that it is asked for, with its port, or name "
        f"the proxy in {NAMED} and let it write X-Forwarded-Host."
    )


def _said(scope: Scope, header: str) -> str:
    """Return what a request says, as the log and an answer may repeat it."""
    return printable((line_of(scope, header) or "")[:_LONGEST_SHOWN])
