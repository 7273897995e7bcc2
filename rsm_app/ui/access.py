"""Who asks, who may look at a run and who may change it.

A run is its owner's. Others may look at it once the owner shares it; only the owner changes it. A run that
was made in a shell has no owner and is everybody's.
"""

from __future__ import annotations

import ipaddress
import time

import gradio as gr

from rsm_app.jobs.places import on_space
from rsm_app.jobs.store import Run, RunStore

REFUSED = (
    "This run belongs to somebody else, so only they can change it. Copy its settings to start your own."
)


def owners_of(request: gr.Request) -> tuple[str, ...]:
    """Return whose runs are the asker's own: the signed-in name if there is one, then the address.

    What was started before signing in stays one's own, as long as the address does.
    """
    return tuple(filter(None, (_signed_in(request), _address(request))))


def owner_of(request: gr.Request) -> str:
    """Return whose a new run becomes; empty, and so everybody's, where nothing tells."""
    return next(iter(owners_of(request)), "")


def _signed_in(request: gr.Request) -> str:
    """Return the Hub name that Gradio's sign-in has kept in the session; empty if none, or over."""
    session = request.request.scope.get("session") if request.request else None
    kept = (session or {}).get("oauth_info") or {}
    expires = kept.get("expires_at")
    if expires is not None and expires < time.time():
        return ""
    return kept.get("userinfo", {}).get("preferred_username", "")


def _address(request: gr.Request) -> str:
    """Return the address asked from.

    On a Space requests come through proxies. Each adds whom it was asked by at the end of a list, so the last
    public address is the visitor's, and what stands before it the visitor may have made up.
    """
    named = request.headers.get("x-forwarded-for", "").split(",") if on_space() else []
    hops = [hop.strip() for hop in named if hop.strip()]
    direct = request.client.host if request.client else ""
    return ([hop for hop in hops if _public(hop)] or hops or [direct])[-1]


def _public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def allowed(run: Run, request: gr.Request) -> bool:
    """Whether a request may change a run."""
    owner = run.job().owner
    return not owner or owner in owners_of(request)


def visible_run(store: RunStore, run_id: object, request: gr.Request) -> Run | None:
    """Return a run that the asker may look at; None when there is none, or it is somebody else's."""
    run = store.run(run_id)
    return run if run is not None and (run.job().shared or allowed(run, request)) else None
