"""Requests as Gradio hands them to a handler: a real one of the server, with a session where there is one."""

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import fastapi
import gradio as gr

HOUR = 3600.0


def asker(
    address="127.0.0.1",
    name="",
    signed_in_for=HOUR,
    lines: Iterable[tuple[str, str]] = (),
    host="127.0.0.1:7860",
    **headers,
) -> gr.Request:
    """Return a request from an address; with a name, of somebody whom Gradio's sign-in has let in.

    Args:
        address: Of the socket that it comes through.
        name: Who has signed in.
        signed_in_for: Seconds until the sign-in is over.
        lines: Header lines in their order, where one name may come more than once.
        host: What it asks for; no Host header at all when empty.
        headers: Further headers, with ``_`` in the place of ``-``.
    """
    said = [
        *([("Host", host)] if host else []),
        *lines,
        *((key.replace("_", "-"), value) for key, value in headers.items()),
    ]
    scope = {
        "type": "http",
        "client": (address, 50000) if address else None,
        "headers": [(key.lower().encode(), value.encode("latin-1")) for key, value in said],
        "query_string": b"",
    }
    if name:
        info = {"userinfo": {"preferred_username": name}, "expires_at": time.time() + signed_in_for}
        scope["session"] = {"oauth_info": info}
    return gr.Request(fastapi.Request(scope))


def run_apart(coroutine):
    """Run a coroutine in a thread of its own: a browser of this process may have a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
