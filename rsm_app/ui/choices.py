"""The runs that can be compared, as choices with names that a person can tell apart."""

from __future__ import annotations

import json
import os
from functools import lru_cache

import gradio as gr

from rsm_app.jobs.owners import share_shell_runs
from rsm_app.jobs.states import ENDED
from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui.access import owners_of, visible_run
from rsm_app.ui.live import run_title
from rsm_app.ui.result import is_finite, number
from trainers.run_folder import RunFolder

# Puts the chosen run into the page's address, so that a reload finds it again.
SHOW_IN_ADDRESS = (
    "(id) => { if (!id) return; const address = new URL(location); address.searchParams.set('run', id); "
    "history.replaceState(null, '', address); }"
)


def finished_choices(
    supervisor: Supervisor, request: gr.Request, mine: bool = False
) -> list[tuple[str, str]]:
    """Return (name, id) of every run that the asker may see and that has a comparison, newest first.

    Args:
        supervisor: The runs.
        request: Who asks.
        mine: Whether only runs that the asker may change are wanted.
    """
    root, found, me = str(supervisor.store.root), [], owners_of(request)
    own = ("", *me) if share_shell_runs(me) else me
    for row in supervisor.index.rows(ENDED, viewer=me):
        if mine and row.owner not in own:
            continue
        path = f"{root}/{row.id}"  # plain text and one look at the disk a run: there may be thousands
        name = _name(path, row.config, _stamp(f"{path}/report.json"))
        if name is not None:
            found.append((name, row.id))
    return found


def _stamp(path: str) -> tuple | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return (info.st_size, info.st_mtime_ns)


@lru_cache(maxsize=4096)
def _name(path: str, config: str, report: tuple | None) -> str | None:
    """Name a run by what it does and gained; None without a comparison. Made anew when the report changes."""
    if report is None:
        return None
    folder = RunFolder(path)
    paired = (folder.read_report() or {}).get("paired")
    gain = paired.get("mean_gain") if isinstance(paired, dict) else None
    if not is_finite(gain):
        return None
    return f"{run_title(json.loads(config))} · gain {number(gain, signed=True)} · {folder.path.name}"


def finished_run(supervisor: Supervisor, run_id: object, request: gr.Request) -> Run | None:
    """Return a run that can be compared by the asker, or None."""
    run = visible_run(supervisor.store, run_id, request)
    if run is None or run.status().state not in ENDED or not run.folder.pairs.is_file():
        return None
    return run if isinstance((run.folder.read_report() or {}).get("paired"), dict) else None


def why_not(supervisor: Supervisor, run_id: str, request: gr.Request) -> str:
    """Say why a run that was asked for cannot be compared; empty when it can."""
    run = visible_run(supervisor.store, run_id, request)
    if run is None:
        return (
            f"There is no run called {run_id[:64]} that you may see; it may have been deleted, or its owner "
            "does not share it."
        )
    if finished_run(supervisor, run_id, request):
        return ""
    if run.status().state not in ENDED:
        return f"Run {run.id} has not ended yet. It can be compared when its pictures are drawn."
    return f"Run {run.id} ended without a comparison. Resume it on the Train page to let it finish."
