"""With whose token a request may speak to the Hub, and whether a sign-in can be offered at all.

A pasted token lives for one request. This machine's own token is its user's, so it serves requests from this
machine alone: never those of a Space's visitors, nor of others who reach the app over a network. Where nobody
is to use it, ``RSM_MACHINE_ACCOUNT=0`` switches it off.
"""

from __future__ import annotations

import importlib.util
import os
from html import escape

import gradio as gr

from rsm_app.hub.sign_in import Token, find_token, local_token
from rsm_app.jobs.host_names import is_here
from rsm_app.jobs.places import on_space
from rsm_app.ui.hosts import is_loopback, lines_of, parse_host, parse_origin
from rsm_app.ui.proxies import forwarded, peer
from trainers.errors import InputError

MACHINE_ACCOUNT = "RSM_MACHINE_ACCOUNT"


def can_sign_in() -> bool:
    """Whether the Hub's sign-in works here: on a Space with OAuth, nowhere else."""
    asked = on_space() and os.environ.get("OAUTH_CLIENT_ID")
    return bool(asked) and importlib.util.find_spec("authlib") is not None


def from_this_machine(request: gr.Request) -> bool:
    """Whether a request comes from somebody at this machine, and from no page or forwarder in between.

    The socket alone does not tell: a forwarder here has one of this machine, and so has a browser here whose
    page of a stranger gave its own name this machine's address. Both still ask for the other name.
    """
    scope = request.request.scope
    if on_space() or forwarded(scope) or not is_loopback(peer(scope)):
        return False
    hosts = [parse_host(text) for text in lines_of(scope, "host")]
    origins = [parse_origin(text) for text in lines_of(scope, "origin")]
    return len(hosts) == 1 and all(named and is_here(named.name) for named in (*hosts, *origins))


def has_machine_account(request: gr.Request) -> bool:
    """Whether a request may use the account of ``hf auth login``."""
    return not _switched_off() and from_this_machine(request)


def _switched_off() -> bool:
    return os.environ.get(MACHINE_ACCOUNT, "1").strip().lower() not in ("1", "true", "yes", "on", "")


def token_of(pasted: object, signed_in: gr.OAuthToken | None, request: gr.Request) -> Token:
    """Return the token that a request may use: pasted, of the person signed in, or of this machine.

    Raises:
        InputError: There is none, or what was pasted is no token.
    """
    text = pasted if isinstance(pasted, str) else ""
    return find_token(text, signed_in.token if signed_in else None, local=has_machine_account(request))


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
    if has_machine_account(request):
        return (
            "<p>This machine is not signed in to the Hub. Run <code>hf auth login</code> in a shell and "
            "reload this page, or paste a token that may write.</p>"
        )
    return f"<p>Paste a token of your own that may write.{_why_not_the_machine_s()}</p>"


def _why_not_the_machine_s() -> str:
    try:
        if on_space() or local_token() is None:
            return ""
    except InputError:  # whatever is in its place is no account
        return ""
    if _switched_off():
        return f" This machine has an account, which is not used here: {MACHINE_ACCOUNT} says so."
    return (
        " This machine has an account, which only serves whoever sits at it and opens 127.0.0.1 or localhost."
    )
