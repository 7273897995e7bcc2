"""With whose token a request may speak to the Hub, and whether a sign-in can be offered at all.

A pasted token lives for one request. This machine's own token is its user's, so it serves requests from this
machine alone: never those of a Space's visitors, nor of others who reach the app over a network.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from html import escape

import gradio as gr

from rsm_app.hub.sign_in import Token, find_token, local_token
from rsm_app.jobs.places import on_space
from trainers.errors import InputError

_FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip")


def can_sign_in() -> bool:
    """Whether the Hub's sign-in works here: on a Space with OAuth, nowhere else."""
    asked = on_space() and os.environ.get("OAUTH_CLIENT_ID")
    return bool(asked) and importlib.util.find_spec("authlib") is not None


def from_this_machine(request: gr.Request) -> bool:
    """Whether a request comes from this machine itself, not from a proxy on it or from a network."""
    if on_space() or any(request.headers.get(name) for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host if request.client else "").is_loopback
    except ValueError:
        return False


def token_of(pasted: object, signed_in: gr.OAuthToken | None, request: gr.Request) -> Token:
    """Return the token that a request may use: pasted, of the person signed in, or of this machine.

    Raises:
        InputError: There is none, or what was pasted is no token.
    """
    text = pasted if isinstance(pasted, str) else ""
    return find_token(text, signed_in.token if signed_in else None, local=from_this_machine(request))


def standing_token(signed_in: gr.OAuthToken | None, request: gr.Request) -> Token | None:
    """Return the token that a request may use without pasting one; None when there is none."""
    try:
        return token_of("", signed_in, request)
    except InputError:
        return None


def who_html(name: str, source: str, request: gr.Request) -> str:
    """Say with whose account the Hub would be asked, and how to change that.

    Args:
        name: The account's name; empty when nobody is signed in.
        source: Where its token comes from, one of ``rsm_app.hub.sign_in.SOURCES``.
        request: Who asks.
    """
    if name and source == "signed in":
        return f"<p>Signed in to the Hub as <b>{escape(name)}</b>.</p>"
    if name:
        return (
            f"<p>This machine is signed in to the Hub as <b>{escape(name)}</b> "
            "(<code>hf auth login</code>). A token pasted below goes before it.</p>"
        )
    if can_sign_in():
        return "<p>Nobody is signed in to the Hub. Sign in, or paste a token that may write.</p>"
    if from_this_machine(request):
        return (
            "<p>This machine is not signed in to the Hub. Run <code>hf auth login</code> in a shell and "
            "reload this page, or paste a token that may write.</p>"
        )
    held = " This machine has an account, which only serves whoever sits at it." if _kept(request) else ""
    return f"<p>Paste a token of your own that may write.{held}</p>"


def _kept(request: gr.Request) -> bool:
    try:
        return not on_space() and local_token() is not None
    except InputError:  # whatever is in its place is no account
        return False
