"""Who asks, who may look at a run and who may change it.

A run is its owner's. Others may look at it once the owner shares it; only the owner changes it. A run that
was made in a shell has no owner and is everybody's.
"""

from __future__ import annotations

import os

import gradio as gr

from rsm_app.jobs.store import Run, RunStore

REFUSED = (
    "This run belongs to somebody else, so only they can change it. Copy its settings to start your own."
)


def owner_of(request: gr.Request) -> str:
    """Return who asks, for the limits of an owner: the signed-in name, else the address asked from.

    On a Space requests come through a proxy, which names the address that it was asked from last in the list.
    """
    forwarded = request.headers.get("x-forwarded-for", "") if os.environ.get("SPACE_ID") else ""
    address = forwarded.rpartition(",")[2].strip() or (request.client.host if request.client else "")
    return request.username or address


def allowed(run: Run, request: gr.Request) -> bool:
    """Whether a request may change a run."""
    owner = run.job().owner
    return not owner or owner == owner_of(request)


def visible_run(store: RunStore, run_id: object, request: gr.Request) -> Run | None:
    """Return a run that the asker may look at; None when there is none, or it is somebody else's."""
    run = store.run(run_id)
    return run if run is not None and (run.job().shared or allowed(run, request)) else None
