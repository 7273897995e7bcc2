"""The publish page: a finished run, what would be pushed and what that changes, and the push itself.

Only a run's owner publishes it, which every handler asks again on the server. A pasted token goes from the
request to the push and nowhere else, and its field is emptied with every use. What a push is doing stands in
the run's folder, so a reload and a restart find it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from html import escape

import gradio as gr

from rsm_app.hub.bundle import bundle
from rsm_app.hub.names import checked_name, suggestions
from rsm_app.hub.push import Push
from rsm_app.hub.push_status import cancel_push, read_push
from rsm_app.hub.sign_in import Token, account, repositories
from rsm_app.hub.target import changes, check_card, look, stamp
from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import costly, importing
from rsm_app.ui.access import allowed, visible_run
from rsm_app.ui.card_view import card_html, files_html, target_html
from rsm_app.ui.choices import SHOW_IN_ADDRESS, finished_choices
from rsm_app.ui.hub_access import standing_token, token_of, who_html
from rsm_app.ui.machine_paths import without_paths
from rsm_app.ui.publish_parts import (
    EMPTY,
    IDLE_SECONDS,
    MOVING_SECONDS,
    PRIVATE,
    PUBLIC,
    PUBLISH,
    Parts,
    build_parts,
)
from rsm_app.ui.push_view import push_html
from trainers.errors import InputError, StudioError

NOT_YOURS = "This run belongs to somebody else, so only they can publish it."
UNCHECKED = "Check the repository first: what would change there is shown before anything is sent."
_LOOKING = '<p class="rsm-message" role="status">Looking at the repository.</p>'
_NOBODY = "your-name"
_QUIET = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
_ONCE = {**_QUIET, "trigger_mode": "once"}
_HUB = {**_ONCE, **costly.kind("hub")}
_CARD = {**_QUIET, **costly.kind("card")}


def build(demo: gr.Blocks, supervisor: Supervisor) -> None:
    """Render the page and wire it to the runs and the Hub."""
    _Page(supervisor, build_parts()).wire(demo)


class _Page:
    """The handlers of the page, bound to its components and the runs."""

    def __init__(self, supervisor: Supervisor, parts: Parts):
        self.supervisor, self.parts = supervisor, parts

    def wire(self, demo: gr.Blocks) -> None:
        """Attach every handler."""
        parts = self.parts
        lists = [parts.told, parts.page, parts.run, parts.listed]
        preview = [
            parts.repo,
            parts.card,
            parts.files,
            parts.target,
            parts.problems,
            parts.checked,
            parts.publish,
        ]
        poll = {
            "fn": self.poll,
            "inputs": [parts.run, parts.seen],
            "outputs": [parts.status, parts.seen, parts.due],
            **_QUIET,
        }
        loaded = demo.load(self.attach, parts.owner, [*lists, *preview], **_CARD)
        loaded.then(**poll)
        loaded.then(None, parts.run, js=SHOW_IN_ADDRESS, api_visibility="private")
        loaded.then(self.greet, [parts.run, parts.repo], [parts.who, parts.owner, parts.repo], **_HUB)
        shown = parts.run.input(
            self.show, [parts.run, parts.owner], preview, trigger_mode="always_last", **_CARD
        )
        shown.then(None, parts.run, js=SHOW_IN_ADDRESS, api_visibility="private")
        shown.then(**poll)
        # Gradio builds every output of a handler anew, so ticks have few; the others follow when one changes.
        parts.timer.tick(**poll, trigger_mode="once")
        parts.due.change(
            self.follow, parts.run, [parts.publish, parts.cancel, parts.retry, parts.timer], **_QUIET
        )
        parts.list_timer.tick(self.offer, None, parts.offered, **_ONCE)
        parts.offered.change(self.take_up, [parts.listed, parts.owner], [*lists, *preview], **_CARD)
        self._wire_buttons(preview, poll)

    def _wire_buttons(self, preview: list, poll: dict) -> None:
        parts = self.parts
        aim = [parts.run, parts.repo, parts.visibility, parts.token]
        gr.on([parts.check.click, parts.repo.submit], self.check, aim, preview, **_HUB)
        ended = [parts.token, parts.problems, parts.checked, parts.target, parts.publish]
        for event in (
            parts.publish.click(self.publish, [*aim, parts.checked], ended, **_HUB),
            parts.retry.click(self.retry, [parts.run, parts.token], [*preview, parts.token], **_HUB),
            parts.cancel.click(self.cancel, parts.run, parts.problems, **_ONCE),
        ):
            event.then(**poll)
        gr.on(
            [parts.bring.click, parts.source.submit], self.bring, [parts.source, parts.token],
            [parts.brought, parts.source, parts.token], api_visibility="private", trigger_mode="once",
            show_progress="full", show_progress_on=[parts.brought], **costly.kind("import"),
        )  # fmt: skip

    # -- which run -----------------------------------------------------------------------------------

    def attach(self, owner: list, request: gr.Request) -> dict:
        """Fill a fresh page: the run of its address, else the newest of the asker's finished ones."""
        asked = request.query_params.get("run", "")
        choices = finished_choices(self.supervisor, request, mine=True)
        chosen, trouble = choices[0][1] if choices else None, ""
        if asked:
            try:
                chosen = self._own(asked, request).id
            except InputError as error:
                trouble = _problems(error)
        told = trouble or ("" if choices or chosen else EMPTY)
        return self._fill(choices, chosen, told, owner, request)

    def offer(self, request: gr.Request) -> str:
        """Return what changes when runs finish or go."""
        return str(hash(repr(finished_choices(self.supervisor, request, mine=True))))

    def take_up(self, listed: list, owner: list, request: gr.Request) -> dict:
        """Take up runs that have finished, or are gone; show the first of all."""
        parts, choices = self.parts, finished_choices(self.supervisor, request, mine=True)
        if [list(choice) for choice in choices] == [list(choice) for choice in listed or []]:
            return gr.skip()
        if listed and choices:
            return {parts.run: gr.update(choices=choices), parts.listed: choices}
        return self._fill(
            choices, choices[0][1] if choices else None, "" if choices else EMPTY, owner, request
        )

    def _fill(self, choices: list, chosen: str | None, told: str, owner: list, request: gr.Request) -> dict:
        parts = self.parts
        filled = {
            parts.told: told,
            parts.page: gr.update(visible=bool(chosen)),
            parts.run: gr.update(choices=choices, value=chosen),
            parts.listed: choices,
        }
        return filled | (self.show(chosen, owner, request) if chosen else {})

    def show(self, run_id: str, owner: list, request: gr.Request) -> dict:
        """Show what a push of a run would send, and suggest where to."""
        parts = self.parts
        fresh = {
            parts.target: "",
            parts.checked: [],
            parts.publish: gr.update(value=PUBLISH, interactive=False),
        }
        try:
            run = self._own(run_id, request)
            repo = read_push(run.path).repo or self._suggestion(run, owner)
            gathered = bundle(run.path, repo)
        except StudioError as error:
            return fresh | {parts.problems: _problems(error), parts.card: "", parts.files: ""}
        return fresh | {
            parts.problems: "",
            parts.repo: repo,
            parts.card: card_html(gathered),
            parts.files: files_html(gathered),
        }

    def _suggestion(self, run: Run, owner: list) -> str:
        """Return a name that neither the account found at the Hub nor another run here has used."""
        name, theirs = owner or ["", []]
        others = [read_push(other.path).repo for other in self.supervisor.store.runs() if other.id != run.id]
        return suggestions(run.settings(), name, [*theirs, *others])[0]

    def _own(self, run_id: object, request: gr.Request) -> Run:
        """Return a run that the asker may publish.

        Raises:
            InputError: There is no such run, or it is somebody else's.
        """
        run = visible_run(self.supervisor.store, run_id, request)
        if run is None:
            raise InputError("There is no such run that you may see. Choose one of the list.")
        if not allowed(run, request):
            raise InputError(NOT_YOURS)
        return run

    # -- the Hub -------------------------------------------------------------------------------------

    def greet(self, run_id: str, repo: str, signed_in: gr.OAuthToken | None, request: gr.Request) -> dict:
        """Say whose account would be used, and suggest a name that it has not used."""
        parts, token = self.parts, standing_token(signed_in, request)
        if token is None:
            return {parts.who: who_html("", "", request)}
        try:
            name = account(token).name
        except StudioError as error:
            return {parts.who: f"<p>{escape(str(error))}</p>"}
        owner = [name, list(_used(token, name))]
        found = {parts.who: who_html(name, token.source, request), parts.owner: owner}
        run = visible_run(self.supervisor.store, run_id, request)
        return found | ({parts.repo: self._suggestion(run, owner)} if run and _placeholder(repo) else {})

    def check(
        self,
        run_id: str,
        repo: str,
        visibility: str,
        pasted: str,
        signed_in: gr.OAuthToken | None,
        request: gr.Request,
    ) -> Iterator[dict]:
        """Look at the repository and show what a push would change there."""
        yield {self.parts.target: _LOOKING, self.parts.problems: ""}
        token = partial(token_of, pasted, signed_in, request)
        yield self._look(run_id, repo, visibility, token, request)

    def _look(
        self, run_id: str, repo: str, visibility: str, find: Callable[[], Token], request: gr.Request
    ) -> dict:
        parts, private = self.parts, visibility == PRIVATE
        closed = {parts.checked: [], parts.publish: gr.update(value=PUBLISH, interactive=False)}
        try:
            run = self._own(run_id, request)
            token = find()
            name = checked_name(_completed(repo, token))
            gathered, target = bundle(run.path, name, token), look(name, token)
            check_card(gathered, token)
        except StudioError as error:
            return closed | {parts.problems: _problems(error), parts.target: ""}
        told = changes(target, gathered)
        shown = {
            parts.problems: "",
            parts.repo: name,
            parts.card: card_html(gathered),
            parts.files: files_html(gathered, target, told),
            parts.target: target_html(target, told, private),
        }
        if not target.may_write or told.nothing_new or read_push(run.path).at_work:
            return shown | closed
        return shown | {
            parts.checked: [run.id, name, "" if target.exists else visibility, stamp(target, gathered)],
            parts.publish: gr.update(value=f"Publish as {name}", interactive=True),
        }

    def publish(
        self,
        run_id: str,
        repo: str,
        visibility: str,
        pasted: str,
        checked: list,
        signed_in: gr.OAuthToken | None,
        request: gr.Request,
    ) -> dict:
        """Begin to push the run to the repository that was looked at."""

        def begin() -> None:
            run, name = self._own(run_id, request), checked_name(str(repo or ""))
            *aim, approved = checked or [""]
            if aim not in ([run.id, name, ""], [run.id, name, visibility]):
                raise InputError(UNCHECKED)
            token = token_of(pasted, signed_in, request)
            Push(run.path, name, token, visibility == PRIVATE, str(approved)).start()

        return self._begun(begin)

    def retry(self, run_id: str, pasted: str, signed_in: gr.OAuthToken | None, request: gr.Request) -> dict:
        """Go on with a push that ended early, to the same repository; look at it first if it has changed."""
        find = partial(token_of, pasted, signed_in, request)
        try:
            run = self._own(run_id, request)
            last = read_push(run.path)
            if not last.can_retry:
                raise InputError("There is no push of this run to go on with. Check the repository.")
        except InputError as error:
            return {self.parts.token: "", self.parts.problems: _problems(error)}
        if last.outdated:
            return self._look(run_id, last.repo, PRIVATE if last.private else PUBLIC, find, request)
        return self._begun(lambda: Push(run.path, last.repo, find(), last.private, last.approved).start())

    def _begun(self, begin: Callable[[], None]) -> dict:
        """Begin a push, and forget the pasted token whatever comes of it."""
        parts = self.parts
        try:
            begin()
        except StudioError as error:
            return {parts.token: "", parts.problems: _problems(error)}
        closed = gr.update(value=PUBLISH, interactive=False)
        emptied = dict.fromkeys((parts.token, parts.problems, parts.target), "")  # the target changes now
        return emptied | {parts.checked: [], parts.publish: closed}

    def cancel(self, run_id: str, request: gr.Request) -> str:
        """Ask the push at work to end."""
        try:
            there = cancel_push(self._own(run_id, request).path)
        except StudioError as error:
            return _problems(error)
        return "" if there else _problems(InputError("No push of this run is at work any more."))

    # -- the push's own state ------------------------------------------------------------------------

    async def poll(self, run_id: str, seen: str, request: gr.Request) -> dict:
        """Show what the push is doing, and say whether the buttons are due; changes nothing on disk."""
        parts = self.parts
        try:
            status = read_push(self._own(run_id, request).path)
        except InputError:
            return {parts.status: "", parts.seen: "", parts.due: []}
        html = push_html(status)
        shown = str(hash((run_id, html)))
        return {
            parts.status: gr.skip() if shown == seen else html,
            parts.seen: shown,
            parts.due: [run_id, status.state, status.started],
        }

    def follow(self, run_id: str, request: gr.Request) -> dict:
        """Offer what can be done about the push as it is now."""
        parts = self.parts
        try:
            status = read_push(self._own(run_id, request).path)
        except InputError:
            return {parts.cancel: gr.update(visible=False), parts.retry: gr.update(visible=False)}
        return {
            parts.publish: gr.update(interactive=False) if status.at_work else gr.skip(),
            parts.cancel: gr.update(visible=status.at_work),
            parts.retry: gr.update(visible=status.can_retry),
            parts.timer: gr.update(value=MOVING_SECONDS if status.at_work else IDLE_SECONDS),
        }

    # -- the way back --------------------------------------------------------------------------------

    def bring(
        self,
        source: str,
        pasted: str,
        signed_in: gr.OAuthToken | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Bring a published LoRA back as a run of the asker."""
        parts = self.parts
        try:
            run = importing.bring(self.supervisor, source, pasted, signed_in, request, progress)
        except StudioError as error:
            return {parts.brought: _problems(error), parts.token: ""}
        return {parts.brought: importing.brought_html(run), parts.source: "", parts.token: ""}


def _completed(repo: object, token: Token) -> str:
    """Return a repository's name with the account's own in the place of the suggestion's placeholder."""
    name = repo if isinstance(repo, str) else ""
    return _with_owner(name, account(token).name) if _placeholder(name) else name


def _used(token: Token, name: str) -> tuple[str, ...]:
    """Return the repositories of an account; none when the Hub does not say."""
    try:
        return repositories(token, name)
    except StudioError:
        return ()


def _placeholder(repo: object) -> bool:
    return isinstance(repo, str) and repo.startswith(f"{_NOBODY}/")


def _with_owner(repo: str, owner: str) -> str:
    placeholder = f"{_NOBODY}/"
    return f"{owner}/{repo.removeprefix(placeholder)}" if (repo or "").startswith(placeholder) else repo


def _problems(error: StudioError) -> str:
    """Return the sentences of an error."""
    texts = list(error.problems) if isinstance(error, InputError) else [str(error)]
    items = "".join(f"<li>{escape(without_paths(text))}</li>" for text in texts)
    return f'<div class="rsm-problems" role="alert"><b>Not done:</b><ul>{items}</ul></div>'
