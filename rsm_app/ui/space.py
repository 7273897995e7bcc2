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
    each += _kept(limits)
    long = f"A run may take {limits.run_seconds / 60:g} minutes. " if limits.run_seconds else ""
    return (
        f"This Space is shared. {each}{long}Runs last until it restarts, so export what you want to keep. "
        "Duplicate it for limits and hardware of your own."
    )


def _kept(limits: Limits) -> str:
    """Say how much of a visitor's is kept, and what goes first."""
    sizes = ((limits.owner_kept, "{:g} ended runs"), (limits.owner_disk_mb, "{:g} MB"))
    most = " and ".join(words.format(number) for number, words in sizes if number)
    if not most:
        return ""
    pins = f", and you may pin {limits.owner_pinned:g}" if limits.owner_pinned else ""
    return f"Of yours {most} are kept{pins}; beyond that your oldest unpinned runs are deleted. "
