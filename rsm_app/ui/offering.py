"""Files to take away, made when somebody asks for one and where Gradio clears away what is old."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from rsm_app.jobs.store import Run
from rsm_app.ui.cached import folder_of
from rsm_app.ui.history import size


def offer(button: gr.DownloadButton, run: Run, make: Callable[[Path], Path]) -> dict:
    """Let a file be made and return what turns a button into the one that saves it.

    Args:
        button: What saves it.
        run: What it is of; the file goes with the run.
        make: Writes the file into the folder that it is given and returns it. The folder is this call's own,
            so that no two tabs write the same file, and its name cannot be guessed.

    Raises:
        StudioError: Whatever ``make`` raises.
    """
    made = make(folder_of(button.GRADIO_CACHE, [run.id]) / secrets.token_hex(16))
    return gr.update(visible=True, value=str(made), label=f"Save {made.name} ({size(made.stat().st_size)})")
