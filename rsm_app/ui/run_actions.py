"""What the buttons of the run panel do with the run that is shown, if the asker may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from rsm_app.jobs.own_prompts import own_prompts
from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import form
from rsm_app.ui.access import GONE, REFUSED, allowed, owners_of, visible_run
from rsm_app.ui.field_problems import problems_html
from rsm_app.ui.offering import offer
from rsm_app.ui.panel import MORE_SECONDS, Panel
from trainers.errors import InputError, StudioError
from trainers.prompts import builtin_sets


@dataclass(frozen=True)
class RunActions:
    """The handlers, bound to the runs and the panel."""

    supervisor: Supervisor
    panel: Panel

    def stop(self, run_id: str, request: gr.Request) -> str:
        """Ask the shown run to finish and keep what it has."""
        return self._attempt(run_id, request, lambda run: self.supervisor.stop(run.id))

    def resume(self, run_id: str, request: gr.Request) -> str:
        """Queue the shown run to go on."""
        return self._attempt(run_id, request, lambda run: self.supervisor.resume(run.id))

    def extend(self, run_id: str, request: gr.Request) -> str:
        """Queue the shown run for more training."""
        return self._attempt(run_id, request, lambda run: self.supervisor.extend(run.id, MORE_SECONDS))

    def retry(self, run_id: str, request: gr.Request) -> tuple:
        """Let a failed run go on from its checkpoint, or begin anew with the same settings."""
        shown = []

        def again(run: Run) -> None:
            if run.resumable():
                shown.append(self.supervisor.resume(run.id))
                return
            config = form.restored_config(run.settings())
            own = own_prompts(run) if config.prompts not in builtin_sets() else None
            if own == "":
                raise InputError("The run's own prompts cannot be read any more, so it cannot begin anew.")
            shown.append(self.supervisor.submit(config, own, *owners_of(request)))

        problems = self._attempt(run_id, request, again)
        return problems, shown[0].id if shown else gr.skip()

    def offerer(self, export: Callable[[Run, Path], Path]) -> Callable[..., tuple]:
        """Return the handler that makes a file of the shown run and offers it to be saved."""

        def hand_out(run_id: str, request: gr.Request) -> tuple:
            offered = []

            def make(run: Run) -> None:
                offered.append(offer(self.supervisor, self.panel.save, run, export, request))

            problems = self._attempt(run_id, request, make)
            return problems, offered[0] if offered else gr.skip()

        hand_out.__name__ = export.__name__
        return hand_out

    def _attempt(self, run_id: str, request: gr.Request, action: Callable[[Run], object]) -> str:
        """Do something with a run if the asker may; return the problems as HTML.

        Of a run that the asker may not see it says what it says of one that is gone.
        """
        run = visible_run(self.supervisor.store, run_id, request)
        if run is None:
            return problems_html([GONE], "Not done:")
        if not allowed(run, request):
            return problems_html([REFUSED], "Not done:")
        try:
            action(run)
        except StudioError as error:
            return problems_html([str(error)], "Not done:")
        return ""
