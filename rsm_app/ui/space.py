"""What only a Space shows: how much of the shared machine a visitor may use, and the button to copy it."""

from __future__ import annotations

import gradio as gr
from gradio.utils import get_space

from rsm_app.jobs.limits import Limits


def build_space(limits: Limits) -> None:
    """Render the limits and the duplicate button; nothing anywhere else than on a Space."""
    if get_space() is None:
        return
    with gr.Row(elem_id="space"):
        with gr.Column(scale=1, min_width=300):
            gr.HTML(f'<p class="rsm-facts">{_sentence(limits)}</p>', padding=False, elem_id="space-limits")
        with gr.Column(scale=0, min_width=180):
            gr.DuplicateButton("Duplicate this Space", elem_id="duplicate")


def _sentence(limits: Limits) -> str:
    """Say what a visitor may take; limits that are none are left out."""
    counts = ((limits.owner_running, "at work"), (limits.owner_queued, "waiting"))
    caps = " and ".join(f"{number:g} {word}" for number, word in counts if number)
    each = f"Runs of one visitor: at most {caps}. " if caps else ""
    long = f"A run may take {limits.run_seconds / 60:g} minutes. " if limits.run_seconds else ""
    return (
        f"This Space is shared. {each}{long}Runs last until it restarts, so export what you want to keep. "
        "Duplicate it for limits and hardware of your own."
    )
