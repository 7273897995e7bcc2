"""The compare page: one finished run before and after, several runs side by side, and the playground.

Handlers only read run folders, which is open to everybody who can open the page; nothing of a run is changed
or offered as a file. All of them are private to the page.
"""

from __future__ import annotations

from html import escape

import gradio as gr

from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import contest, costly, one_run, playground, several_runs
from rsm_app.ui.choices import SHOW_IN_ADDRESS, finished_choices, finished_run, why_not
from rsm_app.ui.event_data import Selected

POLL_SECONDS = 5.0
_QUIET = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
_COSTLY = {**_QUIET, **costly.kind("compare")}
_LATEST = {**_COSTLY, "trigger_mode": "always_last"}  # a choice made while another is shown is not lost
_EMPTY = (
    '<section class="rsm-empty" aria-label="Nothing to compare"><h2>Nothing to compare yet</h2>'
    "<p>Runs appear here when they have drawn their pictures before and after. Start one on the Train page; "
    "with the choices as they come it is done in about 90 seconds.</p></section>"
)


def build(demo: gr.Blocks, supervisor: Supervisor) -> None:
    """Render the page and wire it to the runs."""
    _Page(supervisor).wire(demo)


class _Page:
    """The components of the page and their handlers."""

    def __init__(self, supervisor: Supervisor):
        self.supervisor = supervisor
        self.told = gr.HTML(elem_id="compare-told", padding=False, elem_classes="rsm-plain")
        with gr.Column(visible=False, elem_id="compare-page") as self.page:
            self.run = gr.Dropdown(
                [], label="Run", elem_id="compare-run",
                info="For the first tab and the playground. Newest first; type to search.",
            )  # fmt: skip
            # The list grows while a tab is open; what a tab sends is checked by the store.
            self.run.preprocess = lambda payload: payload
            with gr.Tabs(selected="one", elem_id="compare-tabs") as self.tabs:
                with gr.Tab("One run", id="one"):
                    self.one = one_run.build_panel()
                with gr.Tab("Several runs", id="several"):
                    self.several = several_runs.build_panel()
                with gr.Tab("Playground", id="playground"):
                    self.play = playground.build_panel()
        self.timer = gr.Timer(POLL_SECONDS)
        self.listed, self.offered = gr.State([]), gr.State("")

    def wire(self, demo: gr.Blocks) -> None:
        """Attach every handler."""
        one, several, play = self.one, self.several, self.play
        lists = [self.told, self.page, self.run, several.runs, self.listed]
        whole = [*one.outputs(), *play.outputs(), *play.fields()]
        arrange = [one.order, one.which]
        attached = demo.load(self.attach, None, [*lists, *whole], **_COSTLY)
        shown = self.run.input(self.show_run, [self.run, *arrange], [self.told, *whole], **_LATEST)
        for event in (attached, shown):
            event.then(None, self.run, js=SHOW_IN_ADDRESS, api_visibility="private")
            event.then(self.warm_up, self.run, None, **_QUIET)
        # Gradio builds every output of a handler anew, so a tick has one.
        self.timer.tick(self.poll, None, self.offered, trigger_mode="once", **_QUIET)
        self.offered.change(self.take_up, self.listed, [*lists, *whole], **_COSTLY)
        arranged = [self.run, *arrange]
        gr.on([one.order.input, one.which.input], self.arrange, arranged, one.pair_outputs(), **_LATEST)
        one.gallery.select(self.choose_pair, [self.run, one.shown], one.slider_outputs(), **_LATEST)
        one.more.click(self.show_more, [*arranged, one.shown], one.pair_outputs(), **_COSTLY)
        one.try_pair.click(
            self.to_playground, [self.run, one.chosen], [self.tabs, *play.outputs(), *play.fields()], **_QUIET
        )
        chosen = [several.runs, several.axis]
        for changed in (
            several.runs.change(self.contest, several.runs, several.outputs(), **_LATEST),
            several.axis.input(
                lambda: several_runs.hide_curves(several), None, several.curve_outputs(), **_LATEST
            ),
        ):
            changed.then(self.axis, chosen, several.curve_outputs(), **_COSTLY)
        gr.on(
            [play.draw.click, play.inputs["prompt"].submit], self.draw, [self.run, *play.fields()],
            play.outputs(), api_visibility="private", show_progress="full",
            show_progress_on=[play.before, play.after], trigger_mode="once", **playground.ONE_AT_A_TIME,
        )  # fmt: skip

    # -- which run -----------------------------------------------------------------------------------

    def attach(self, request: gr.Request) -> dict:
        """Fill a fresh page: the run of its address, else the newest finished one."""
        asked = request.query_params.get("run", "")
        choices = finished_choices(self.supervisor, request)
        trouble = why_not(self.supervisor, asked, request) if asked else ""
        first = choices[0][1] if choices else None
        run = finished_run(self.supervisor, asked if asked and not trouble else first, request)
        changes = self._lists(choices, run.id if run else None)
        changes[self.told] = _told(trouble) if trouble else "" if choices else _EMPTY
        return changes | (self._show(run, "gain", "all") if run else {})

    def poll(self, request: gr.Request) -> str:
        """Return what changes when runs finish or go."""
        return str(hash(repr(finished_choices(self.supervisor, request))))

    def take_up(self, listed: list, request: gr.Request) -> dict:
        """Take up runs that have finished, or are gone, since the page was filled; show the first of all."""
        choices = finished_choices(self.supervisor, request)
        if [list(choice) for choice in choices] == [list(choice) for choice in listed or []]:
            return gr.skip()
        if listed and choices:
            return self._lists(choices)
        run = finished_run(self.supervisor, choices[0][1], request) if choices else None
        changes = self._lists(choices, run.id if run else None)
        return {
            **changes,
            self.told: "" if choices else _EMPTY,
            **(self._show(run, "gain", "all") if run else {}),
        }

    def _lists(self, choices: list, value: object = None) -> dict:
        chosen = {"value": value} if value else {}
        return {
            self.page: gr.update(visible=bool(choices)),
            self.run: gr.update(choices=choices, **chosen),
            self.several.runs: gr.update(choices=choices),
            self.listed: choices,
        }

    def show_run(self, run_id: str, order: str, which: str, request: gr.Request) -> dict:
        """Show the chosen run, or say why it cannot be shown."""
        run = finished_run(self.supervisor, run_id, request)
        if run is None:
            return {self.told: _told(why_not(self.supervisor, str(run_id or ""), request))}
        return {self.told: "", **self._show(run, order, which)}

    def _show(self, run: Run, order: str, which: str) -> dict:
        return one_run.show(self.one, run, order, which) | playground.usual(self.play, run)

    def warm_up(self, run_id: str, request: gr.Request) -> None:
        """Make the first drawing of the shown run a quick one."""
        playground.warm_up(finished_run(self.supervisor, run_id, request))

    # -- one run -------------------------------------------------------------------------------------

    def arrange(self, run_id: str, order: str, which: str, request: gr.Request) -> dict:
        """Sort and filter the pairs."""
        run = finished_run(self.supervisor, run_id, request)
        return one_run.show_pairs(self.one, run, order, which) if run else gr.skip()

    def show_more(self, run_id: str, order: str, which: str, shown: list, request: gr.Request) -> dict:
        """Show more pairs."""
        run = finished_run(self.supervisor, run_id, request)
        return one_run.show_more(self.one, run, order, which, shown or []) if run else gr.skip()

    def choose_pair(self, run_id: str, shown: list, event: Selected, request: gr.Request) -> dict:
        """Put the chosen pair on the slider."""
        run = finished_run(self.supervisor, run_id, request)
        if not run or event.index is None or not isinstance(shown, list) or event.index >= len(shown):
            return gr.skip()
        return one_run.show_pair(self.one, run, one_run.pair_of(run, shown[event.index]))

    def to_playground(self, run_id: str, chosen: int | None, request: gr.Request) -> dict:
        """Take the pair on the slider to the playground."""
        run = finished_run(self.supervisor, run_id, request)
        pair = one_run.pair_of(run, chosen) if run and chosen is not None else None
        return {self.tabs: gr.update(selected="playground"), **playground.usual(self.play, run, pair)}

    # -- several runs and the playground -------------------------------------------------------------

    def contest(self, run_ids: list, request: gr.Request) -> dict:
        """Compare the chosen runs."""
        return several_runs.show(self.several, self._finished(run_ids, request), len(run_ids or []))

    def axis(self, run_ids: list, axis: str, request: gr.Request) -> dict:
        """Draw the curves over another axis."""
        return several_runs.show_curves(self.several, contest.entries(self._finished(run_ids, request)), axis)

    def _finished(self, run_ids: list, request: gr.Request) -> list[Run]:
        names = dict.fromkeys(name for name in run_ids or [] if isinstance(name, str))
        return [run for name in list(names)[:100] if (run := finished_run(self.supervisor, name, request))]

    def draw(
        self,
        run_id: str,
        request: gr.Request,
        *values,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Draw before and after for what the playground's fields hold."""
        return playground.draw(self.play, finished_run(self.supervisor, run_id, request), values, progress)


def _told(text: str) -> str:
    return f'<p class="rsm-switch" role="status">{escape(text)}</p>' if text else ""
