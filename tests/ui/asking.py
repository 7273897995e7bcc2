"""Requests as Gradio hands them to a handler: a real one of the server, with a session where there is one."""

import time

import fastapi
import gradio as gr

HOUR = 3600.0


def asker(address="127.0.0.1", name="", signed_in_for=HOUR, **headers) -> gr.Request:
    """Return a request from an address; with a name, of somebody whom Gradio's sign-in has let in."""
    scope = {
        "type": "http",
        "client": (address, 50000),
        "headers": [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()],
        "query_string": b"",
    }
    if name:
        info = {"userinfo": {"preferred_username": name}, "expires_at": time.time() + signed_in_for}
        scope["session"] = {"oauth_info": info}
    return gr.Request(fastapi.Request(scope))
