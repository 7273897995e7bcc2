"""What our own middleware and a server say to each other, see asgi.readthedocs.io; and a short answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def path_of(scope: Scope) -> str:
    """Return the path within the app, where a proxy has put the app under one."""
    path, root = scope["path"], scope.get("root_path", "")
    if root and path == root:
        return "/"
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


async def answer(scope: Scope, send: Send, status: int, sentence: str) -> None:
    """Answer a request with a sentence, where Gradio's page and its clients look for one."""
    body = json.dumps({"detail": sentence, "error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"retry-after", b"5")] if status == 429 else []
    headers += [(b"connection", b"close")] if status == 408 else []  # else who still sends hears no answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
