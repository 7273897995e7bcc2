"""Bringing a published LoRA back, as an event of the publish page: it becomes a run of whoever asks."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from rsm_app.hub.fetching import fetch
from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui.access import owner_of, owners_of
from rsm_app.ui.hub_access import standing_token, token_of
from rsm_app.ui.panel import MORE_SECONDS


def bring(
    supervisor: Supervisor,
    source: object,
    pasted: object,
    signed_in: gr.OAuthToken | None,
    request: gr.Request,
    progress: gr.Progress,
) -> Run:
    """Fetch a published run and give it to the asker.

    Args:
        supervisor: The runs.
        source: ``owner/name``, ``owner/name@revision`` or an address, as typed.
        pasted: A token for a private repository; may be empty.
        signed_in: The token of a Space's sign-in, if there is one.
        request: Who asks.
        progress: Hears what is going on.

    Raises:
        InputError: The name is wrong, or the repository holds no sound run of this app, or too large a one.
        HubProblem: It is missing, private or gated, or the Hub cannot be reached.
        FaultError: The disk is full, or would be.
    """
    typed = isinstance(pasted, str) and pasted.strip()
    token = token_of(pasted, signed_in, request) if typed else standing_token(signed_in, request)
    text = source[:500] if isinstance(source, str) else ""

    def into(path: Path) -> None:
        fetch(
            text,
            token,
            path,
            tell=lambda said: progress(0.0, desc=said),
            owner=owner_of(request),
            limits=supervisor.limits,
        )

    return supervisor.adopt(into, *owners_of(request))


def brought_html(run: Run) -> str:
    """Say what was brought and what can be done with it."""
    name = escape(run.id)
    return (
        f'<p class="rsm-target rsm-edge-good" role="status">{escape(run.status().message)} It is run '
        f'<code>{name}</code> of yours now: <a href="./compare?run={name}">compare it</a>, or '
        f'<a href="./?run={name}">train on from it</a> with <b>Train {MORE_SECONDS // 60} minutes '
        "more</b>.</p>"
    )
