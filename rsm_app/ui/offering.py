"""Files to take away, made when somebody asks for one, and theirs for a while."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from rsm_app.jobs.cleaning import MB, low_disk
from rsm_app.jobs.index import folder_bytes
from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui.access import owner_of
from rsm_app.ui.cached import folder_of
from rsm_app.ui.history import size
from trainers.errors import FaultError


def offer(
    supervisor: Supervisor,
    button: gr.DownloadButton,
    run: Run,
    export: Callable[[Run, Path], Path],
    request: gr.Request,
) -> dict:
    """Let a file of a run be made and return what turns a button into the one that saves it.

    Args:
        supervisor: The runs; it keeps the file for whoever asks, in the place of an earlier one.
        button: What saves it.
        run: What it is of; the file goes with the run.
        export: Writes the file into the folder that it is given and returns it. The folder is this call's
            own, so that no two tabs write the same file, and its name cannot be guessed.
        request: Who asks.

    Raises:
        FaultError: There is no room for it.
        StudioError: Whatever ``export`` raises.
    """
    limits = supervisor.limits
    # Below the space that stays free all runs are stopped, so no visitor may use it up.
    needed = folder_bytes(run.path) / MB if limits.files_mb else 0.0
    if needed and (trouble := low_disk(supervisor.store, limits.free_mb, needed)):
        raise FaultError(trouble)
    made = export(run, folder_of(button.GRADIO_CACHE, [run.id]) / secrets.token_hex(16))
    taken = made.stat().st_size
    if not supervisor.files.keep(owner_of(request), made.parent, f"{run.id}/{export.__name__}"):
        raise FaultError(
            f"This file takes {size(taken)}, and all files that one uploads and exports may take "
            f"{limits.owner_files_mb:g} MB here. Export a part of the run instead."
        )
    return gr.update(visible=True, value=str(made), label=f"Save {made.name} ({size(taken)})")
