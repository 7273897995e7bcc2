"""The typed endpoints for programs (``gradio_client``); everything else that the pages call is private.

Each checks like the page does: the same limits, the same owner, a sentence for whatever is wrong.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from rsm_app.jobs.ceilings import prompt_count_problems
from rsm_app.jobs.exporting import without_folders
from rsm_app.jobs.fitting import require_model
from rsm_app.jobs.index import Row
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.states import STATES
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import costly, playground
from rsm_app.ui.access import REFUSED, allowed, owners_of, visible_run
from rsm_app.ui.form import MAX_UPLOAD_BYTES
from rsm_app.ui.machine_paths import without_paths
from trainers.config import RunConfig
from trainers.errors import InputError, StudioError
from trainers.preflight import prompt_problems
from trainers.presets import build_config
from trainers.prompt_files import PromptRow, as_text
from trainers.prompts import builtin_sets, read_prompts
from trainers.run_folder import read_json

MOST_LISTED = 500
_NO_RUN = "There is no run with this id, or it is somebody else's."
_MAIN = ("model", "reward", "estimator", "budget_seconds", "seed", "prompts")


def build(supervisor: Supervisor) -> None:
    """Add the endpoints to the blocks that are being built."""
    api = Api(supervisor)
    gr.api(_spoken(api.start_run), api_name="start_run", **costly.kind("submit"))
    for name in ("run_status", "list_runs", "stop_run"):
        gr.api(_spoken(getattr(api, name)), api_name=name, concurrency_limit=None)
    gr.api(_spoken(api.sample), api_name="sample", **playground.ONE_AT_A_TIME)


def _spoken(function: Callable) -> Callable:
    """Turn every error that the studio knows into a sentence for the caller."""

    @functools.wraps(function)
    def call(*values, **named):
        try:
            return function(*values, **named)
        except StudioError as error:
            raise gr.Error(without_paths(str(error)), print_exception=False) from error

    return call


@dataclass(frozen=True)
class Api:
    """The endpoints, bound to the runs and their queue."""

    supervisor: Supervisor

    def start_run(
        self,
        request: gr.Request,
        model: str = RunConfig.model,
        reward: str = RunConfig.reward,
        estimator: str = RunConfig.estimator,
        budget_seconds: float | None = None,
        seed: int = RunConfig.seed,
        prompts: str = "",
        settings: dict | None = None,
    ) -> dict[str, Any]:
        """Queue a run; ``run_status`` says what is returned.

        Args:
            request: Who asks.
            model: A base model.
            reward: A reward, or a mixture such as shapes:1,tiny_clip:0.2.
            estimator: A method.
            budget_seconds: The time it may take; None for the usual one of model and method.
            seed: The same seed repeats the run.
            prompts: A built-in set's name, or own prompts: one a line, JSON, JSON lines, or tab-separated.
            settings: Any other setting by name.
        """
        values, own = self._values(settings), None
        values["seed"] = seed
        if budget_seconds is not None:
            values["budget_seconds"] = budget_seconds
        if prompts in builtin_sets():
            values["prompts"] = prompts
        elif prompts:
            own = _own_prompts(prompts, self.supervisor.limits)
        require_model(str(model))
        config = build_config(str(model), str(estimator), str(reward), values)
        if budget_seconds is None:
            usual = self.supervisor.limits.within(config.budget_seconds)
            config = dataclasses.replace(config, budget_seconds=usual)
        _refuse_unusable(config, own)
        text = as_text(own) if own else None
        return self._told(self.supervisor.submit(config, text, *owners_of(request)).id)

    @staticmethod
    def _values(settings: object) -> dict:
        if settings is None:
            return {}
        if not isinstance(settings, dict):
            raise InputError("'settings' must be fields by name, for example {\"kl_weight\": 0.1}.")
        own = sorted(set(settings) & set(_MAIN))
        if own:
            raise InputError(f"Give {', '.join(own)} by name of the call, not within 'settings'.")
        held = settings.get("heldout_prompts")
        if held is not None and held not in builtin_sets():  # never a file of this machine
            raise InputError(f"'heldout_prompts' must be a built-in set: {', '.join(builtin_sets())}.")
        return dict(settings)

    def run_status(self, request: gr.Request, run: str) -> dict[str, Any]:
        """Tell a run's state, phase, seconds left, place in the queue, settings, gain and error."""
        return self._told(self._existing(run, request).id)

    def list_runs(self, request: gr.Request, state: str = "", limit: int = 50) -> list[dict[str, Any]]:
        """List runs, newest first, as run_status tells them; only those in a state, if one is named."""
        if state and state not in STATES:
            raise InputError(f"'state' must be one of {', '.join(STATES)}, not '{state}'.")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_LISTED:
            raise InputError(f"'limit' must be a whole number from 1 to {MOST_LISTED}.")
        states = (state,) if state else ()
        rows = self.supervisor.index.rows(states, limit=limit, viewer=owners_of(request))
        return [self._row(row) for row in rows]

    def stop_run(self, request: gr.Request, run: str) -> dict[str, Any]:
        """Ask a run of yours to finish and keep what it has. Returns what run_status does."""
        found = self._existing(run, request)
        if not allowed(found, request):
            raise InputError(REFUSED)
        self.supervisor.stop(found.id)
        return self._told(found.id)

    def sample(
        self,
        request: gr.Request,
        run: str,
        prompt: str,
        seed: int = 0,
        steps: int = 12,
        guidance: float = 1.0,
        strength: float = 1.0,
    ) -> dict[str, Any]:
        """Draw a prompt before and after a run; both pictures are PNG data URLs."""
        found = self._existing(run, request)
        drawing = playground.draw_wish(found, (prompt, seed, steps, guidance, strength))
        return {
            "before": _data_url(drawing.before),
            "after": _data_url(drawing.after),
            "seconds": drawing.seconds,
        }

    def _existing(self, run_id: str, request: gr.Request):
        run = visible_run(self.supervisor.store, run_id, request)
        if run is None:
            raise InputError(_NO_RUN)
        return run

    def _told(self, run_id: str) -> dict:
        row = self.supervisor.index.row(run_id)
        if row is None:
            raise InputError(_NO_RUN)
        return self._row(row)

    def _row(self, row: Row) -> dict:
        place = self.supervisor.place(row.id) if row.state == "queued" else None
        report = read_json(self.supervisor.store.root / row.id / "report.json") or {}
        return {
            "run": row.id,
            "state": row.state,
            "phase": row.phase,
            "seconds_left": row.eta_seconds if row.eta_seconds >= 0 else None,
            "queue_position": place.position if place else None,
            "settings": without_folders(row.settings),
            "paired": report.get("paired"),
            "message": without_paths(row.message),
            "error": without_paths(row.error),
        }


def _own_prompts(text: object, limits: Limits) -> list[PromptRow]:
    if not isinstance(text, str) or len(text) > MAX_UPLOAD_BYTES:
        raise InputError("'prompts' must be the name of a built-in set, or text with one prompt a line.")
    if found := prompt_count_problems(text.count("\n") + 1, limits):
        raise InputError(*found)
    return read_prompts(text, "'prompts'")


def _refuse_unusable(config: RunConfig, own: list[PromptRow] | None) -> None:
    told = prompt_problems(config, own)
    if found := [sentence for sentences in told.values() for sentence in sentences]:
        raise InputError(*dict.fromkeys(found))


def _data_url(picture) -> str:
    """Return (3, H, W) uint8 as a PNG in a data URL."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
