"""Who asks, who may look at a run and who may change it.

A run is its owner's. Others may look at it once the owner shares it; only the owner changes it. A run that
was made in a shell has no owner and is everybody's; one whose record cannot be read is nobody's.
"""

from __future__ import annotations

import time

import gradio as gr

from rsm_app.jobs.owners import owner_of_address, owner_through
from rsm_app.jobs.records import Job
from rsm_app.jobs.store import Run, RunStore
from rsm_app.ui.hosts import is_loopback, is_own_name, line_of, parse_host
from rsm_app.ui.proxies import peer, written_down

UNKNOWN = "somebody"  # who asks through a socket without an address
GONE = "This run no longer exists, or its owner does not share it any more."
REFUSED = (
    "This run belongs to somebody else, so only they can change it. Copy its settings to start your own."
)


def owners_of(request: gr.Request) -> tuple[str, ...]:
    """Return whose runs are the asker's own: the signed-in name if there is one, then the address.

    What was started before signing in stays one's own, as long as the address does.
    """
    return tuple(filter(None, (_signed_in(request), _address(request))))


def owner_of(request: gr.Request) -> str:
    """Return whose a new run becomes."""
    return owners_of(request)[0]


def _signed_in(request: gr.Request) -> str:
    """Return the Hub name that Gradio's sign-in has kept in the session; empty if none, or over."""
    session = request.request.scope.get("session") if request.request else None
    kept = (session or {}).get("oauth_info") or {}
    expires = kept.get("expires_at")
    if expires is not None and expires < time.time():
        return ""
    return kept.get("userinfo", {}).get("preferred_username", "")


def _address(request: gr.Request) -> str:
    """Return the owner that the address asked from belongs to; see ``proxies`` and ``owner_of_address``.

    Not everybody who comes from this machine's own address sits at it. Another machine's name that leads here
    is a forwarder's that adds no header, or that of a page which made the browser here ask; and a proxy here
    may hand on what it was told.
    """
    scope = request.request.scope
    hop = written_down(scope)
    address = hop or peer(scope)
    asked = line_of(scope, "host") or ""
    host = parse_host(asked)
    strange = bool(asked) and not (host and is_own_name(host.name))
    if is_loopback(address) and (hop or strange):
        return owner_through(address, host.name if host else "another name")
    return owner_of_address(address) or UNKNOWN


def allowed(run: Run, request: gr.Request) -> bool:
    """Whether a request may change a run."""
    return _owns(run.job(), request)


def visible_run(store: RunStore, run_id: object, request: gr.Request) -> Run | None:
    """Return a run that the asker may look at; None when there is none, or it is somebody else's."""
    run = store.run(run_id)
    if run is None:
        return None
    job = run.job()
    return run if job.shared or _owns(job, request) else None


def _owns(job: Job, request: gr.Request) -> bool:
    return job.shell or job.owner in owners_of(request)
