"""The train page: three choices, prompts and a time budget on the left, the run on the right.

Handlers queue, stop and resume runs through ``rsm_app.jobs``; timers only read. All handlers are private
to the page. Which run a tab shows is in its address (``?run=ID``) and in the browser's own storage.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr

from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import fields, form, pictures, watch
from trainers.config import RunConfig
from trainers.errors import InputError, StudioError
from trainers.models import MODELS
from trainers.prompts import builtin_sets
from trainers.rewards import REWARDS

# Until a fresh page knows which run it shows, the remembered one must not overwrite the one in its address.
_SHOW_RUN = (
    "(id) => { if (!id) return; const address = new URL(location), asked = address.searchParams.get('run'); "
    "if (!window.rsmAttached && asked && asked !== id) return; address.searchParams.set('run', id); "
    "history.replaceState(null, '', address); }"
)
_ATTACHED = "() => { window.rsmAttached = true; }"
_TO_RUN = (
    "() => document.getElementById('run-status')?.scrollIntoView({behavior: 'smooth', block: 'nearest'})"
)
_QUIET = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}


@dataclass
class _Inputs:
    """The form's components."""

    model: gr.Radio
    reward: gr.Radio
    mixture: gr.Textbox
    estimator: gr.Radio
    notes: gr.HTML
    prompt_source: gr.Radio
    prompt_set: gr.Dropdown
    pasted: gr.Textbox
    upload: gr.File
    budget: gr.Radio
    custom_seconds: gr.Number
    seed: gr.Number
    advanced: list
    tuned: gr.State
    start: gr.Button
    problems: gr.HTML

    def sent(self) -> list:
        """Return the inputs in the order of ``form.Form``; the advanced ones come last."""
        return [
            self.model, self.reward, self.mixture, self.estimator, self.prompt_source, self.prompt_set,
            self.pasted, self.upload, self.budget, self.custom_seconds, self.seed, *self.advanced,
        ]  # fmt: skip


def build(demo: gr.Blocks, supervisor: Supervisor) -> None:
    """Render the page and wire it to the runs and their queue."""
    shown_run = gr.BrowserState("", storage_key="rsm-studio-run", secret="rsm-studio")
    empty_line = form.settings_line(form.newcomer_config().__dict__)
    with gr.Row(elem_id="page"):
        with gr.Column(scale=2, min_width=320, elem_id="setup"):
            inputs = _build_form()
        with gr.Column(scale=3, min_width=320, elem_id="run-panel"):
            panel = watch.build_panel(empty_line)
    _Page(supervisor, inputs, panel, shown_run, empty_line).wire(demo)


def _build_form() -> _Inputs:
    config = form.newcomer_config()
    choices = _build_choices(config)
    prompts = _build_prompts(config)
    budget = gr.Radio(
        form.budget_options(), value=str(round(config.budget_seconds)), label="5 · Time budget",
        info="For the whole run, both comparisons included.", elem_id="budget",
    )  # fmt: skip
    custom = gr.Number(label="Seconds", elem_id="custom-seconds", visible=False, value=240)
    seed = gr.Number(label="Seed", info="The same seed repeats the run.", value=config.seed, elem_id="seed")
    with gr.Accordion("Advanced settings", open=False, elem_id="advanced"):
        gr.HTML(
            '<p class="rsm-facts">Tuned for the choices above; other choices set them anew.</p>',
            padding=False,
            elem_classes="rsm-plain",
        )
        advanced = fields.build_fields(config)
    tuned = gr.State(fields.values_of(config))
    with gr.Column(elem_id="start-bar"):
        problems = gr.HTML("", elem_id="problems", padding=False)
        start = gr.Button("Start", variant="primary", size="lg", elem_id="start")
    return _Inputs(
        *choices, *prompts, budget, custom, seed, advanced, tuned, start, problems,
    )  # fmt: skip


def _build_choices(config: RunConfig) -> tuple:
    """Render model, reward, custom mixture, estimator and the notes on what does not fit."""
    fitting = form.fit(config.model, config.reward, config.estimator)
    model = gr.Radio(
        form.options(MODELS),
        value=config.model,
        label="1 · Base model",
        elem_id="model",
        elem_classes="rsm-cards",
    )
    reward = gr.Radio(
        form.reward_options(),
        value=config.reward,
        label="2 · Reward: what counts as better",
        elem_id="reward",
        elem_classes="rsm-cards",
    )
    mixture = gr.Textbox(
        label="Custom mixture", info=f"Names with weights. Names: {', '.join(REWARDS.names())}.",
        placeholder="shapes:1,tiny_clip:0.2", elem_id="mixture", visible=False, max_lines=1,
    )  # fmt: skip
    estimator = gr.Radio(
        fitting.choices, value=fitting.estimator, label="3 · Estimator: how it learns", elem_id="estimator",
        elem_classes="rsm-cards",
    )  # fmt: skip
    # Its choices change, and a tab from before a restart may send one that is not among the first ones: pass
    # it on, the form checks every value.
    estimator.preprocess = lambda payload: payload
    notes = gr.HTML(fitting.notes, elem_id="estimator-notes", padding=False)
    return model, reward, mixture, estimator, notes


def _build_prompts(config: RunConfig) -> tuple:
    """Render the source of the prompts and one input for each source."""
    source = gr.Radio(
        form.PROMPT_SOURCES, value=form.BUILTIN, label="4 · Training prompts", elem_id="prompt-source"
    )
    prompt_set = gr.Dropdown(
        list(builtin_sets()),
        value=config.prompts,
        label="Built-in set",
        elem_id="prompt-set",
        filterable=False,
    )
    pasted = gr.Textbox(
        label="Prompts, one a line", lines=4, max_lines=12, elem_id="pasted", visible=False,
        placeholder="a red circle left of a blue square\nthree green triangles",
    )  # fmt: skip
    upload = gr.File(
        label="Text file, one prompt a line", file_types=["text"], elem_id="upload", visible=False, height=120
    )
    return source, prompt_set, pasted, upload


class _Page:
    """The handlers of the page, bound to its components and the runs."""

    def __init__(
        self, supervisor: Supervisor, inputs: _Inputs, panel: watch.Panel, shown_run, empty_line: str
    ):
        self.supervisor, self.inputs, self.panel = supervisor, inputs, panel
        self.shown_run, self.empty_line = shown_run, empty_line

    def wire(self, demo: gr.Blocks) -> None:
        """Attach every handler."""
        form_, panel, run = self.inputs, self.panel, self.shown_run
        panel_outputs = panel.components()
        poll = {"fn": self.poll, "inputs": [run, panel.seen, panel.order], "outputs": panel_outputs, **_QUIET}
        choices = [form_.model, form_.reward, form_.mixture, form_.estimator, form_.tuned]
        chosen = [form_.mixture, form_.estimator, form_.notes, form_.tuned, *form_.advanced]
        gr.on(
            [form_.model.input, form_.reward.input, form_.estimator.input, form_.mixture.blur],
            self.choose, choices, chosen, trigger_mode="always_last", **_QUIET,
        )  # fmt: skip
        form_.prompt_source.change(
            lambda source: [gr.update(visible=source == name) for name in form.PROMPT_SOURCES],
            form_.prompt_source, [form_.prompt_set, form_.pasted, form_.upload], **_QUIET,
        )  # fmt: skip
        form_.budget.change(
            lambda budget: gr.update(visible=budget == form.CUSTOM),
            form_.budget,
            form_.custom_seconds,
            **_QUIET,
        )
        started = form_.start.click(
            self.start, form_.sent(), [form_.problems, run], **_QUIET, trigger_mode="once"
        )  # fmt: skip
        resumed = panel.resume.click(self.resume, run, [form_.problems], **_QUIET, trigger_mode="once")
        stopped = panel.stop.click(self.stop, run, [form_.problems], **_QUIET, trigger_mode="once")
        extended = panel.more.click(self.extend, run, [form_.problems], **_QUIET, trigger_mode="once")
        for event in (started, resumed, stopped, extended):
            event.then(**poll)
        started.success(None, js=_TO_RUN, api_visibility="private")
        panel.timer.tick(**poll, trigger_mode="once")
        panel.order.input(**poll)
        pair = [panel.slider, panel.pair_caption]
        panel.gallery.select(self.select_pair, [run, panel.order], pair, **_QUIET)
        run.change(None, run, js=_SHOW_RUN, api_visibility="private")
        restored = [
            form_.model, form_.reward, form_.prompt_source, form_.prompt_set, form_.pasted, form_.budget,
            form_.custom_seconds, form_.seed, *chosen,
        ]  # fmt: skip
        attached = demo.load(self.attach, run, [run, *restored], **_QUIET)
        attached.then(**poll)
        attached.then(None, js=_ATTACHED, api_visibility="private")

    def poll(self, run_id: str, seen: dict, order: str) -> dict:
        """Bring the run panel up to date; changes nothing on disk."""
        return watch.refresh(self.supervisor, self.panel, run_id or "", seen or {}, order, self.empty_line)

    def choose(self, model: str, reward: str, mixture: str, estimator: str, tuned: list) -> list:
        """Show what fits the three choices, and their tuned settings where these differ from the last."""
        text = (mixture or "") if reward == form.CUSTOM else reward
        fitting = form.fit(model, text, estimator)
        values = form.presets_for(model, fitting.estimator, text)
        return [
            gr.update(visible=reward == form.CUSTOM),
            gr.update(choices=fitting.choices, value=fitting.estimator),
            fitting.notes,
            values,
            *(values if values != tuned else [gr.skip()] * len(values)),
        ]

    def start(self, request: gr.Request, *values) -> tuple:
        """Check the whole form and queue the run, or say everything that is wrong with it."""
        simple, advanced = values[:11], values[11:]
        try:
            config, prompts = form.check(form.Form(*simple, advanced=advanced))
            run = self.supervisor.submit(config, prompts, owner_of(request))
        except InputError as error:
            return _problems_html(list(error.problems)), gr.skip()
        except StudioError as error:
            return _problems_html([str(error)]), gr.skip()
        return "", run.id

    def stop(self, run_id: str) -> str:
        """Ask the shown run to finish and keep what it has."""
        return self._attempt(lambda: self.supervisor.stop(run_id))

    def resume(self, run_id: str) -> str:
        """Queue the shown run to go on."""
        return self._attempt(lambda: self.supervisor.resume(run_id))

    def extend(self, run_id: str) -> str:
        """Queue the shown run for more training."""
        return self._attempt(lambda: self.supervisor.extend(run_id, watch.MORE_SECONDS))

    @staticmethod
    def _attempt(action) -> str:
        try:
            action()
        except StudioError as error:
            return _problems_html([str(error)])
        return ""

    def select_pair(self, run_id: str, order: str, event: gr.SelectData) -> dict:
        """Put the chosen pair on the slider."""
        run = self.supervisor.store.run(run_id)
        pairs = pictures.ordered_pairs(run, order) if run else []
        if not run or not isinstance(event.index, int) or event.index >= len(pairs):
            return {}
        return watch.show_pair(self.panel, run, pairs[event.index])

    def attach(self, remembered: str, request: gr.Request) -> list:
        """Choose the run a fresh page shows: the address's, else the browser's last, else the live one."""
        asked = request.query_params.get("run", "")
        run = self.supervisor.store.run(asked or remembered)
        if run is None and not asked:
            run = self.supervisor.present()
        updates = self._restored(run)
        shown = run.id if run else asked
        return [shown, *(updates or [gr.skip()] * (12 + len(self.inputs.advanced)))]

    def _restored(self, run: Run | None) -> list | None:
        """Return the form as it was for a run, so that a reload loses no setting."""
        try:
            config = form.restored_config(run.settings()) if run else None
        except InputError:
            return None
        if config is None:
            return None
        reward = config.reward if config.reward in REWARDS else form.CUSTOM
        updates = self.choose(config.model, reward, config.reward, config.estimator, [])
        updates[0] = gr.update(
            value="" if reward != form.CUSTOM else config.reward, visible=reward == form.CUSTOM
        )
        updates[4:] = fields.values_of(config)
        own = config.prompts not in builtin_sets()
        seconds = f"{config.budget_seconds:g}"
        listed = seconds in [value for _, value in form.budget_options()]
        return [
            config.model,
            reward,
            form.PASTE if own else form.BUILTIN,
            gr.skip() if own else config.prompts,
            _own_text(run) if own else gr.skip(),
            seconds if listed else form.CUSTOM,
            gr.skip() if listed else config.budget_seconds,
            config.seed,
            *updates,
        ]


def _own_text(run: Run) -> str:
    try:
        return Path(run.prompts).read_text(encoding="utf-8")
    except OSError:
        return ""


def owner_of(request: gr.Request) -> str:
    """Return who asks, for the limits of an owner: the signed-in name, else the address asked from.

    On a Space requests come through a proxy, which names the address that it was asked from last in the list.
    """
    forwarded = request.headers.get("x-forwarded-for", "") if os.environ.get("SPACE_ID") else ""
    address = forwarded.rpartition(",")[2].strip() or (request.client.host if request.client else "")
    return request.username or address


def _problems_html(problems: list[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in problems)
    return f'<div class="rsm-problems" role="alert"><b>Before this can start:</b><ul>{items}</ul></div>'
