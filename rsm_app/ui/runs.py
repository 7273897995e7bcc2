"""The runs page: every run of this installation, and what can be done with one of them.

The list only reads. What changes a run goes through ``rsm_app.jobs`` after ``access.allowed`` was asked, on
the server and at every press of a button. What a tab looks at is kept in the browser, so a reload, another
tab and a restart of the app find it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from html import escape

import gradio as gr

from rsm_app.jobs.exporting import export
from rsm_app.jobs.index import Page, Row
from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import LIVE, Supervisor
from rsm_app.ui import costly, history, run_table
from rsm_app.ui.access import GONE, REFUSED, allowed, owners_of, visible_run
from rsm_app.ui.cached import forget
from rsm_app.ui.history import View
from rsm_app.ui.machine_paths import without_paths
from rsm_app.ui.offering import offer
from rsm_app.ui.runs_parts import IDLE_SECONDS, MOVING_SECONDS, PIN, SHARE, UNPIN, UNSHARE, Parts, build_parts
from trainers.errors import InputError, StudioError

_QUIET = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
_ONCE = {**_QUIET, "trigger_mode": "once"}
_SHARED = "Everybody who uses this app can look at this run now. Open it to copy its address."
_NOT_SHARED = "Only you can look at this run now."
# Whoever chose a run with the keyboard goes on with its buttons, which come after the whole list.
_TO_BUTTONS = (
    "() => setTimeout(() => document.querySelector('#runs-open')?.focus({preventScroll: true}), 150)"
)
_TO_QUESTION = (
    "() => setTimeout(() => document.querySelector('#runs-keep')?.focus({preventScroll: true}), 150)"
)


def build(demo: gr.Blocks, supervisor: Supervisor) -> None:
    """Render the page and wire it to the runs and their queue."""
    _Page(supervisor, build_parts()).wire(demo)


# Parts that a tick sends itself: Gradio builds every output of a handler anew, so a tick has few.
_CHEAP = ("summary", "table", "facts")


class _Page:
    """The handlers of the page, bound to its components and the runs."""

    def __init__(self, supervisor: Supervisor, parts: Parts):
        self.supervisor, self.parts = supervisor, parts

    def wire(self, demo: gr.Blocks) -> None:
        """Attach every handler; each may change every component."""
        parts, outputs = self.parts, self.parts.all()
        looks = [parts.view, parts.seen]
        demo.load(self.load, looks, outputs, **_QUIET)
        cheap = [getattr(parts, name) for name in _CHEAP]
        parts.timer.tick(self.poll, looks, [*cheap, parts.seen, parts.due], **_ONCE)
        parts.due.change(self.follow, looks, outputs, **_QUIET)
        gr.on(
            [parts.search.change, parts.group.input], self.narrow, [*looks, parts.search, parts.group],
            outputs, trigger_mode="always_last", **_QUIET,
        )  # fmt: skip
        chosen = parts.table.click(self.choose, looks, outputs, **_QUIET)
        chosen.then(None, js=_TO_BUTTONS, api_visibility="private")
        for button, action in (
            (parts.newer, self.newer),
            (parts.older, self.older),
            (parts.close, self.close),
            (parts.stop, self.stop),
            (parts.keep, self.keep),
        ):
            button.click(action, looks, outputs, **_ONCE)
        parts.resume.click(self.resume, looks, outputs, **{**_ONCE, **costly.kind("submit")})
        parts.export.click(self.export, looks, outputs, **{**_ONCE, **costly.kind("export")})
        parts.pin.click(self.pin, [*looks, parts.pin], outputs, **_ONCE)
        parts.share.click(self.share, [*looks, parts.share], outputs, **_ONCE)
        asked = parts.delete.click(self.ask, looks, outputs, **_ONCE)
        asked.success(None, js=_TO_QUESTION, api_visibility="private")
        parts.really.click(self.delete, [*looks, parts.doomed], outputs, **_ONCE)

    # -- looking -------------------------------------------------------------------------------------

    def load(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Show a fresh page what the browser looked at last, or the run that its address names."""
        view = dataclasses.replace(View.read(raw), page=0)
        if asked := request.query_params.get("run", ""):
            view = dataclasses.replace(view, chosen=asked)
        changes = {self.parts.search: view.text, self.parts.group: view.group}
        return changes | self._show(view, {}, request, view_changed=True)

    def poll(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Bring the list up to date, and say whether anything else is due; changes nothing on disk."""
        content, view, gone = self._content(View.read(raw), request)
        changes, now = self._changes({name: content[name] for name in _CHEAP if name in content}, seen)
        later, then = self._changes(content, now)
        if later or gone:
            changes[self.parts.due] = hash((repr(then), view))
        return changes | {self.parts.seen: now}

    def follow(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Bring the whole page up to date; changes nothing on disk."""
        return self._show(View.read(raw), seen, request)

    def narrow(self, raw: dict, seen: dict, text: str, group: str, request: gr.Request) -> dict:
        """List the runs that fit the search and the chosen states."""
        view = View.read({**_mapping(raw), "text": text, "group": group, "page": 0})
        return self._show(view, seen, request, view_changed=True)

    def newer(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Turn to the page of newer runs."""
        return self._turn(raw, seen, -1, request)

    def older(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Turn to the page of older runs."""
        return self._turn(raw, seen, 1, request)

    def _turn(self, raw: dict, seen: dict, step: int, request: gr.Request) -> dict:
        view = View.read(raw)
        shown = history.listing(self.supervisor, view, owners_of(request)).offset // history.PAGE_SIZE
        view = dataclasses.replace(view, page=max(0, shown + step))
        return self._show(view, seen, request, view_changed=True)

    def choose(self, raw: dict, seen: dict, event: gr.EventData, request: gr.Request) -> dict:
        """Show the buttons of the run whose line was clicked."""
        asked = event._data.get("run") if isinstance(event._data, dict) else None
        view = View.read({**_mapping(raw), "chosen": asked})
        return self._put_away("") | self._show(view, seen, request, view_changed=True)

    def close(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Put the buttons away."""
        view = dataclasses.replace(View.read(raw), chosen="")
        return self._put_away("") | self._show(view, seen, request, view_changed=True)

    def _show(self, view: View, seen: dict, request: gr.Request, view_changed: bool = False) -> dict:
        """Return the components whose content is not what this tab was sent last."""
        content, view, gone = self._content(view, request)
        changes, now = self._changes(content, seen)
        if view_changed or gone:
            changes[self.parts.view] = dataclasses.asdict(view)
        return changes | {self.parts.seen: now}

    def _content(self, view: View, request: gr.Request) -> tuple[dict, View, bool]:
        """Return what the parts show by name, the view, and whether its chosen run is no longer there."""
        me = owners_of(request)
        listed = history.listing(self.supervisor, view, me)
        run, row = self._chosen(view, listed, request)
        gone = bool(view.chosen and row is None)
        if gone:
            view = dataclasses.replace(view, chosen="")
        content = self._list_content(listed, view, me)
        if run and row:
            return content | self._bar_content(run, row, allowed(run, request)), view, gone
        return content | {"bar": gr.update(visible=False)}, view, gone

    def _changes(self, content: dict, seen: object) -> tuple[dict, dict]:
        """Return the parts that a tab was not sent like this, and what it has been sent with them."""
        known = _mapping(seen)
        now = known | {name: hash(repr(value)) for name, value in content.items()}
        fresh = {name: value for name, value in content.items() if known.get(name) != now[name]}
        return {getattr(self.parts, name): value for name, value in fresh.items()}, now

    def _chosen(self, view: View, listed: Page, request: gr.Request) -> tuple[Run | None, Row | None]:
        """Return the chosen run, which need not be on the page that is shown."""
        run = visible_run(self.supervisor.store, view.chosen, request)
        if run is None:
            return None, None
        row = next((row for row in listed.rows if row.id == run.id), None)
        return run, row or self.supervisor.index.row(run.id)

    def _list_content(self, listed: Page, view: View, me: tuple[str, ...]) -> dict:
        last = listed.offset + len(listed.rows)
        moving = any(listed.states.get(state) for state in (*LIVE, "queued"))
        return {
            "summary": run_table.summary_html(listed, self.supervisor.trouble),
            "table": run_table.table_html(self.supervisor, listed, view, me),
            "pager": gr.update(visible=listed.found > history.PAGE_SIZE),
            "pager_text": run_table.pager_html(listed),
            "newer": gr.update(interactive=listed.offset > 0),
            "older": gr.update(interactive=last < listed.found),
            "timer": gr.update(value=MOVING_SECONDS if moving else IDLE_SECONDS),
        }

    def _bar_content(self, run: Run, row: Row, mine: bool) -> dict:
        owned = mine and bool(row.owner)  # without an owner it is everybody's already
        queued, moving = row.state == "queued", row.state in (*LIVE, "queued")
        address = run_table.link(run.id)
        return {
            "bar": gr.update(visible=True),
            "facts": run_table.chosen_html(self.supervisor, run, row, mine),
            "open": gr.update(link=address),
            "stop": gr.update(
                visible=mine and moving,
                interactive=row.state != "stopping",
                value="Take out of the queue" if queued else "Stop",
            ),
            "resume": gr.update(visible=mine and not moving and run.resumable()),
            "retry": gr.update(visible=row.state == "failed", link=address),
            "pin": gr.update(visible=mine, value=UNPIN if row.pinned else PIN),
            "share": gr.update(visible=owned, value=UNSHARE if row.shared else SHARE),
            "publish": gr.update(
                visible=mine and not moving and run.folder.report.is_file(),
                link=run_table.publish_link(run.id),
            ),
            "export": gr.update(visible=mine and not moving),
            "delete": gr.update(visible=mine and not moving),
        }

    def _put_away(self, notice: str) -> dict:
        """Return a notice, and neither a question nor a zip of what was chosen before."""
        return {
            self.parts.notice: notice,
            self.parts.confirm: gr.update(visible=False),
            self.parts.save: gr.update(visible=False, value=None),
            self.parts.doomed: "",
        }

    # -- changing ------------------------------------------------------------------------------------

    def stop(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Ask the chosen run to finish and keep what it has, or take it out of the queue."""
        return self._act(raw, seen, request, lambda run: self.supervisor.stop(run.id))

    def resume(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Queue the chosen run to go on."""
        return self._act(raw, seen, request, lambda run: self.supervisor.resume(run.id))

    def pin(self, raw: dict, seen: dict, label: str, request: gr.Request) -> dict:
        """Do what the button said: keep the chosen run from being cleaned away, or allow it again."""
        return self._act(raw, seen, request, lambda run: self.supervisor.pin(run.id, label == PIN))

    def share(self, raw: dict, seen: dict, label: str, request: gr.Request) -> dict:
        """Do what the button said: let others look at the chosen run, or its owner alone again."""
        told = _SHARED if label == SHARE else _NOT_SHARED
        return self._act(raw, seen, request, lambda run: self.supervisor.share(run.id, label == SHARE), told)

    def export(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Offer the chosen run as a zip, made where Gradio clears away what is old."""
        offered: list[dict] = []

        def make(run: Run) -> None:
            offered.append(offer(self.supervisor, self.parts.save, run, export, request))

        changes = self._act(raw, seen, request, make)
        if offered:
            changes[self.parts.save] = offered[0]
        return changes

    def ask(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Say what would be lost with the chosen run, and offer to delete it."""
        asked: list[str] = []

        def question(run: Run) -> None:
            row = self.supervisor.index.row(self.supervisor.deletable(run.id).id)
            if row is None:  # deleted this very moment
                raise InputError(GONE)
            asked.extend((run.id, run_table.losses(run, row)))

        changes = self._act(raw, seen, request, question)
        if asked:
            changes |= {
                self.parts.confirm: gr.update(visible=True),
                self.parts.question: f'<p role="alert">{escape(asked[1])}</p>',
                self.parts.doomed: asked[0],
            }
        return changes

    def keep(self, raw: dict, seen: dict, request: gr.Request) -> dict:
        """Take the question back."""
        return self._put_away("") | self._show(View.read(raw), seen, request)

    def delete(self, raw: dict, seen: dict, doomed: str, request: gr.Request) -> dict:
        """Delete the run that was asked about, and no other."""
        view = View.read({**_mapping(raw), "chosen": doomed})
        told = f"Run {doomed} was deleted."

        def delete(run: Run) -> None:
            self.supervisor.delete(run.id)
            forget(run.id)

        return self._act(dataclasses.asdict(view), seen, request, delete, told)

    def _act(
        self, raw: dict, seen: dict, request: gr.Request, action: Callable[[Run], object], told: str = ""
    ) -> dict:
        """Do something with the chosen run if it belongs to whoever asks; else say why not."""
        view = View.read(raw)
        run = visible_run(self.supervisor.store, view.chosen, request)
        if run is None:
            notice = _problem(GONE)
        elif not allowed(run, request):
            notice = _problem(REFUSED)
        else:
            try:
                action(run)
                notice = f'<p class="rsm-notice" role="status">{escape(told)}</p>' if told else ""
            except StudioError as error:
                notice = _problem(str(error))
        return self._put_away(notice) | self._show(view, seen, request)


def _mapping(raw: object) -> dict:
    return raw if isinstance(raw, dict) else {}


def _problem(sentence: str) -> str:
    return f'<div class="rsm-problems" role="alert">{escape(without_paths(sentence))}</div>'
