"""The train page: three choices, prompts and a time budget on the left, the run on the right.

Handlers queue, stop and resume runs through ``rsm_app.jobs``; timers only read. All handlers are private
to the page. Which run a tab shows is in its address (``?run=ID``) and in the browser's own storage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import gradio as gr

from rsm_app.jobs.base_samples import check_spread
from rsm_app.jobs.exporting import export_adapter, export_report
from rsm_app.jobs.fitting import require_model
from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import copying, costly, field_problems, form, kept_form, pictures, preflight, tuned, watch
from rsm_app.ui.access import allowed, owners_of, visible_run
from rsm_app.ui.event_data import Selected
from rsm_app.ui.form_filling import FormFiller
from rsm_app.ui.hub_access import from_this_machine
from rsm_app.ui.panel import Panel, build_panel
from rsm_app.ui.press import on_press
from rsm_app.ui.run_actions import RunActions
from rsm_app.ui.setup import CHECK_LABEL, Inputs, build_form
from trainers.errors import InputError, StudioError

# Until a fresh page knows which run it shows, the remembered one must not overwrite the one in its address.
_SHOW_RUN = (
    "(id) => { if (!id || !window.rsmAttached) return; const address = new URL(location); "
    "address.searchParams.set('run', id); history.replaceState(null, '', address); }"
)
_ATTACHED = f"(id) => {{ window.rsmAttached = true; ({_SHOW_RUN})(id); }}"
_TO_RUN = (
    "() => document.getElementById('run-status')?.scrollIntoView({behavior: 'smooth', block: 'nearest'})"
)
_TO_FORM = "() => document.getElementById('setup')?.scrollIntoView({behavior: 'smooth', block: 'start'})"
_QUIET = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
_PREVIEW = {**_QUIET, **costly.kind("preview")}
# Texts of which nothing is to be made: Gradio would hand each to a thread and back, a third of a tick.
_AS_IT_IS = {**_QUIET, "preprocess": False, "postprocess": False}


def build(demo: gr.Blocks, supervisor: Supervisor) -> None:
    """Render the page and wire it to the runs and their queue."""
    shown_run = gr.BrowserState("", storage_key="rsm-studio-run", secret="rsm-studio")
    empty_line = form.settings_line(form.newcomer_config().__dict__)
    with gr.Row(elem_id="page"):
        with gr.Column(scale=2, min_width=320, elem_id="setup"):
            inputs = build_form()
        with gr.Column(scale=3, min_width=320, elem_id="run-panel"):
            panel = build_panel(empty_line, watch.PARTS)
    _Page(supervisor, inputs, panel, shown_run, empty_line).wire(demo)


class _Page:
    """The handlers of the page, bound to its components and the runs."""

    def __init__(self, supervisor: Supervisor, inputs: Inputs, panel: Panel, shown_run, empty_line: str):
        self.supervisor, self.inputs, self.panel = supervisor, inputs, panel
        self.shown_run, self.empty_line = shown_run, empty_line
        self.actions = RunActions(supervisor, panel)
        self.form_filler = FormFiller(self.shown)

    def wire(self, demo: gr.Blocks) -> None:
        """Attach every handler."""
        form_, panel, run = self.inputs, self.panel, self.shown_run
        poll = {
            "fn": self.poll,
            "inputs": [run, panel.seen],
            "outputs": [panel.status, panel.seen, panel.ticket],
            "queue": False,
            **_AS_IT_IS,
        }
        chosen = [
            form_.mixture, form_.estimator, form_.every, form_.notes, form_.spread_result, form_.followed,
        ]  # fmt: skip
        restored = [
            form_.model, form_.reward, form_.prompt_source, form_.pasted, form_.seed, *chosen,
            *form_.following(),
        ]  # fmt: skip
        self._wire_form(chosen)
        self._wire_run(poll, restored)
        panel.timer.tick(**poll, trigger_mode="once")
        panel.ticket.change(self.due, run, list(panel.due.values()), **_AS_IT_IS)
        for name, part in watch.PARTS.items():
            fill = {"fn": self.filler(name), "inputs": [run, panel.order], "outputs": part.components(panel)}
            panel.due[name].change(**fill, **_QUIET)
            if name == "outcome":
                panel.order.input(**fill, **_QUIET)
        pair = [panel.slider, panel.pair_caption]
        panel.gallery.select(self.select_pair, [run, panel.order], pair, **_QUIET)
        run.change(None, run, js=_SHOW_RUN, api_visibility="private")
        kept = gr.Textbox("", label="Choices that this tab kept", visible="hidden")
        filled = [*restored, form_.kept]
        attached = demo.load(self.attach, [run, kept], [run, *filled], js=kept_form.READ, **_QUIET)
        forgotten = form_.forget.click(self.forget, None, filled, js=kept_form.FORGET, **_QUIET)
        forgotten.then(self.preview, form_.sent(), self._told(), **_PREVIEW)
        attached.then(**poll)
        attached.then(None, run, js=_ATTACHED, api_visibility="private")
        attached.then(self.preview, form_.sent(), self._told(), **_PREVIEW)

    def _wire_form(self, chosen: list) -> None:
        form_ = self.inputs
        # The last one counts: a look at values that have changed meanwhile must not be the one that stays.
        preview = {"fn": self.preview, "inputs": form_.sent(), "outputs": self._told(), "js": kept_form.KEEP}
        preview |= {**_PREVIEW, "trigger_mode": "always_last"}
        form_.pasted.change(None, form_.sent(), js=kept_form.KEEP_TYPED, api_visibility="private")
        choices = [
            form_.model, form_.reward, form_.mixture, form_.estimator, form_.followed, form_.every,
        ]  # fmt: skip
        radios, following = [form_.model, form_.reward, form_.estimator, form_.every], form_.following()
        # Not by the events of the choice itself: Gradio repeats those when it makes up for a waiting one.
        moments = [*(radio.select for radio in radios), form_.mixture.input]
        gr.on(moments, None, following, js=tuned.REMEMBER, api_visibility="private")
        answered = gr.on(
            [*(radio.input for radio in radios), form_.mixture.blur],
            self.choose, choices, [*chosen, form_.proposed], trigger_mode="always_last", **_QUIET,
        )  # fmt: skip
        answered.then(
            None, [form_.proposed, *following], following, js=tuned.APPLY, trigger_mode="always_last",
            api_visibility="private",
        ).then(**preview)  # fmt: skip
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
        edited = [part.input if isinstance(part, gr.Dropdown) else part.blur for part in form_.advanced]
        others = [form_.pasted.blur, form_.prompt_set.input, form_.prompt_source.input, form_.upload.change]
        gr.on(
            [form_.budget.input, form_.custom_seconds.blur, form_.seed.blur, *others, *edited],
            **preview,
        )
        form_.spread.click(
            self.check_reward, form_.sent(), [form_.spread, form_.spread_result], api_visibility="private",
            show_progress="hidden", trigger_mode="once", **costly.kind("spread"),
        )  # fmt: skip

    def _wire_run(self, poll: dict, restored: list) -> None:
        form_, panel, run = self.inputs, self.panel, self.shown_run
        once = {**_QUIET, "trigger_mode": "once"}
        ask = {**once, **costly.kind("submit")}
        started = on_press(form_.start, "Starting …", self.start, form_.sent(), [form_.problems, run], **ask)
        started.then(self.preview, form_.sent(), self._told(), **{**once, **_PREVIEW})
        form_.problems.change(self.point_out, form_.sent(), list(form_.sections.values()), **_PREVIEW)
        retried = on_press(panel.retry, "Starting …", self.actions.retry, run, [form_.problems, run], **ask)
        resumed = on_press(panel.resume, "Resuming …", self.actions.resume, run, [form_.problems], **ask)
        stopped = on_press(panel.stop, "Stopping …", self.actions.stop, run, [form_.problems], **once)
        extended = on_press(panel.more, "Asking …", self.actions.extend, run, [form_.problems], **ask)
        for event in (started, retried, resumed, stopped, extended):
            event.then(**poll)
        for button, export in ((panel.adapter, export_adapter), (panel.report, export_report)):
            hand_out = {**once, **costly.kind("export")}
            filled = [form_.problems, panel.save]
            on_press(button, "Preparing …", self.actions.offerer(export), run, filled, **hand_out)
        started.success(None, js=_TO_RUN, api_visibility="private")
        copied = panel.duplicate.click(self.duplicate, run, restored, **once)
        copied.then(self.preview, form_.sent(), self._told(), js=kept_form.KEEP, **_PREVIEW)
        copied.success(None, js=_TO_FORM, api_visibility="private")

    async def poll(self, run_id: object, seen: str, request: gr.Request) -> dict:
        """Bring the head of the run panel up to date; changes nothing on disk.

        It reads a few small files, which takes less time than handing it to a thread and back. What takes
        longer is read by a thread: others are waiting.
        """
        sight = self._sight(run_id, request)
        asked = run_id if isinstance(run_id, str) else ""
        words = (self.supervisor, self.panel, sight, asked, seen, self.empty_line)
        if sight is None or sight.quick:
            return watch.look(*words)
        return await asyncio.to_thread(watch.look, *words)

    def due(self, run_id: object, request: gr.Request) -> dict:
        """Say which parts of the run panel are due."""
        return watch.due(self.panel, self._sight(run_id, request))

    def filler(self, name: str) -> Callable[..., dict]:
        """Return the handler that fills one part of the run panel."""

        def fill(run_id: str, order: str, request: gr.Request) -> dict:
            return watch.PARTS[name].fill(self.panel, self._sight(run_id, request, order))

        fill.__name__ = f"fill_{name}"
        return fill

    def _sight(self, run_id: object, request: gr.Request, order: str = "gain") -> watch.Sight | None:
        run = self._visible(run_id, request)
        if run is None:
            return None
        return watch.Sight(run, allowed(run, request), order, at_machine=from_this_machine(request))

    def shown(
        self, model: str, reward: str, mixture: str, estimator: str | None, every: bool = False
    ) -> list:
        """Return what the form shows for three choices, and what it has followed then."""
        text = (mixture or "") if reward == form.CUSTOM else reward
        fitting = form.fit(model, text, estimator, every)
        settings = tuned.presets_for(model, fitting.estimator, text, self.supervisor.limits)
        return [
            gr.update(visible=reward == form.CUSTOM),
            gr.update(choices=fitting.choices, value=fitting.estimator),
            gr.update(info=form.hidden_line(fitting.hidden)),
            fitting.notes,
            gr.update(value="", visible=False),
            tuned.Followed((model, text, every), settings),
        ]

    def choose(
        self,
        model: str,
        reward: str,
        mixture: str,
        estimator: str | None,
        before: tuned.Followed,
        every: bool = False,
    ) -> list:
        """Show what fits the three choices, and propose their settings where these differ from the last.

        Another estimator leaves the list itself alone: it must not move under somebody who goes through it by
        keyboard. The selected one is left alone as long as it fits: another may have been selected since.
        """
        box, listed, line, notes, spread, followed = self.shown(model, reward, mixture, estimator, every)
        fits = listed["value"] == estimator
        if fits:
            del listed["value"]
        if fits and followed.lists == before.lists:
            listed = line = spread = gr.skip()
        proposed = tuned.proposal(followed.settings, before.settings)
        return [box, listed, line, notes, spread, followed, proposed]

    def _told(self) -> list:
        """Return what a look at the form's values changes."""
        return [self.inputs.preflight, *self.inputs.told.values()]

    def preview(self, *values) -> dict:
        """Say what a run with the form's settings will take, and at each field what is wrong with it."""
        wrong = None
        try:
            config, own = self._checked(values)
            html = preflight.preflight_html(self.supervisor, config, own)
        except InputError as error:
            wrong, html = error, preflight.unready_html(list(error.problems))
        return {self.inputs.preflight: html, **field_problems.tell(self.inputs.told, wrong)}

    def check_reward(self, *values) -> Iterator[tuple]:
        """Draw a few base samples and say whether the reward tells them apart."""
        busy = gr.update(interactive=False, value="Drawing …")
        yield busy, gr.update(value=preflight.DRAWING, visible=True)
        try:
            config, prompts = self._checked(values)
            require_model(config.model)
            html = preflight.spread_html(check_spread(config, prompts, self.supervisor.limits), config)
        except InputError as error:
            html = field_problems.problems_html(list(error.problems))
        except StudioError as error:
            html = field_problems.problems_html([str(error)], "The reward could not be checked:")
        yield gr.update(interactive=True, value=CHECK_LABEL), gr.update(value=html, visible=True)

    def _checked(self, values: tuple) -> tuple:
        return form.check(_form(values), self.supervisor.limits)

    def start(self, request: gr.Request, *values) -> tuple:
        """Check the whole form and queue the run, or say everything that is wrong with it."""
        try:
            config, prompts = self._checked(values)
            require_model(config.model)
            run = self.supervisor.submit(config, prompts, *owners_of(request))
        except InputError as error:
            return field_problems.problems_html(list(error.problems)), gr.skip()
        except StudioError as error:
            return field_problems.problems_html([str(error)]), gr.skip()
        return "", run.id

    def point_out(self, *values) -> dict:
        """Open the advanced sections that hold what is wrong; a start that goes well needs none of it."""
        wrong = None
        try:
            self._checked(values)
        except InputError as error:
            wrong = error
        return field_problems.open_sections(self.inputs.sections, wrong)

    def _visible(self, run_id: object, request: gr.Request) -> Run | None:
        return visible_run(self.supervisor.store, run_id, request)

    def duplicate(self, run_id: str, request: gr.Request) -> list:
        """Fill the form with the settings of the shown run."""
        run = self._visible(run_id, request)
        updates = self.form_filler.of_run(run)
        if run is None or updates is None:
            gr.Warning("The settings of this run cannot be read, so the form stays as it is.")
            return self.form_filler.nothing()
        for sentence in copying.not_copied(run):
            gr.Warning(sentence)
        gr.Info("The form has the settings of this run now. Change what you like, then press Start.")
        return updates

    def select_pair(self, run_id: str, order: str, event: Selected, request: gr.Request) -> dict:
        """Put the chosen pair on the slider."""
        run = self._visible(run_id, request)
        pairs = pictures.ordered_pairs(run, order) if run else []
        if not run or event.index is None or event.index >= len(pairs):
            return gr.skip()
        return watch.show_pair(self.panel, run, pairs[event.index])

    def attach(self, remembered: str, kept: str, request: gr.Request) -> list:
        """Choose the run a fresh page shows: the address's, else the browser's last, else a live one.

        The form has what its tab kept while the page was loaded anew, else the settings of that run.
        """
        asked = request.query_params.get("run", "")
        run = self._visible(asked or remembered, request)
        if run is None and not asked:
            run = self.supervisor.present(owners_of(request))
        again = self.form_filler.of_tab(kept, asked)
        updates = again or self.form_filler.of_run(run) or self.form_filler.nothing()
        return [run.id if run else asked, *updates, gr.update(visible=bool(again))]

    def forget(self) -> list:
        """Fill the form with what every fresh page has."""
        return [*self.form_filler.of_newcomer(), gr.update(visible=False)]


def _form(values: tuple) -> form.Form:
    return form.Form(*values[:11], advanced=values[11:])
