"""The list of runs as HTML: one table, which the style sheet turns into cards on a narrow window.

Every text that comes from a run is escaped here.
"""

from __future__ import annotations

import time
from html import escape

from rsm_app.jobs.index import Page, Row
from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import LIVE, Supervisor
from rsm_app.ui import history, live
from rsm_app.ui.history import View
from rsm_app.ui.machine_paths import without_paths
from rsm_app.ui.result import duration, verdict

# A click anywhere on a run's line chooses it, except on the link that opens the run.
CHOOSE = (
    "element.addEventListener('click', (event) => { if (event.target.closest('a')) return; "
    "const line = event.target.closest('[data-run]'); "
    "if (line) trigger('click', {run: line.dataset.run}); })"
)
WAITING = '<p class="rsm-facts" aria-busy="true">Reading the list of runs.</p>'
_EMPTY = (
    '<section class="rsm-empty" aria-label="No run yet"><h2>No run yet</h2><p>Every run that is started here '
    'is listed on this page, with its result. <a href="./">Start the first one on the Train page.</a>'
    "</p></section>"
)
_NONE_FITS = (
    '<section class="rsm-empty" aria-label="No run fits"><h2>No run fits</h2><p>{count} here, but none of '
    "them fits the search and the states chosen above. Empty the search or choose All.</p></section>"
)
_HEADS = ("Run", "State", "Gain", "Time", "Size", "Owner")


def link(run_id: str) -> str:
    """Return the address of a run on the Train page, relative to this page's own."""
    return f"./?run={run_id}"


def publish_link(run_id: str) -> str:
    """Return the address of a run on the Publish page, relative to any other page's own."""
    return f"./publish?run={run_id}"


def summary_html(listing: Page, trouble: str) -> str:
    """Say how many runs there are, how many work or wait, what they take, and what holds the queue up."""
    count = sum(listing.states.values())
    working = sum(listing.states.get(state, 0) for state in LIVE)
    parts = [_runs(count)]
    parts += [f"{working} at work"] if working else []
    parts += [f"{listing.states['queued']} waiting"] if listing.states.get("queued") else []
    parts += [f"{history.size(listing.bytes)} on disk"] if listing.bytes else []
    told = f'<p class="rsm-trouble" role="alert">{escape(without_paths(trouble))}</p>' if trouble else ""
    return f'<p class="rsm-facts">{" · ".join(parts)}</p>{told}' if count else told


def table_html(supervisor: Supervisor, listing: Page, view: View, me: tuple[str, ...]) -> str:
    """Return the lines of one page of runs, or a sentence when there are none."""
    if not listing.rows:
        count = sum(listing.states.values())
        return _NONE_FITS.format(count=_runs(count, verb=True)) if count else _EMPTY
    zone = escape(time.strftime("%Z"))
    heads = "".join(f'<th scope="col">{head}</th>' for head in (*_HEADS, f"Asked for ({zone})"))
    lines = "".join(_line(supervisor, row, row.id == view.chosen, me) for row in listing.rows)
    return (
        '<table class="rsm-runs"><caption class="rsm-hidden">Runs, newest first</caption><thead><tr>'
        f'<th scope="col"><span class="rsm-hidden">Choose</span></th>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table>"
    )


def pager_html(listing: Page) -> str:
    """Say which runs of how many the page shows."""
    first, last = listing.offset + 1, listing.offset + len(listing.rows)
    return f'<p class="rsm-facts" role="status">Runs {first} to {last} of {listing.found:,}</p>'


def _runs(count: int, verb: bool = False) -> str:
    are = (" is" if count == 1 else " are") if verb else ""
    return f"{'There' + are + ' ' if verb else ''}{count:,} {'run' if count == 1 else 'runs'}"


def _line(supervisor: Supervisor, row: Row, chosen: bool, me: tuple[str, ...]) -> str:
    report = history.outcome(supervisor.store.root / row.id)
    place = supervisor.place(row.id) if row.state == "queued" else None
    title, method = escape(history.title(row)), escape(history.names(row.config)[2])
    state = f"{badge(row.state)}{_small(history.detail(row, place))}"
    tone = f' class="rsm-{report.tone}"' if report.tone else ""
    gain = f"<span{tone}>{report.gain or '–'}</span>{_small(report.note)}"
    pinned = ' <span class="rsm-pin">Pinned</span>' if row.pinned else ""
    cells = (
        ("State", state),
        ("Gain", gain),
        ("Time", duration(history.seconds_taken(row, report))),
        ("Size", history.size(row.bytes) if row.bytes else "–"),
        ("Owner", escape(history.owner_name(row.owner, me))),
        ("Asked for", _moment(row.submitted or row.started)),
    )
    name = f'<a href="{link(row.id)}">{title}</a>{pinned}<small>{method}</small><code>{row.id}</code>'
    return (
        f'<tr data-run="{row.id}" data-state="{row.state}"{" class=rsm-chosen" if chosen else ""}>'
        f'<td class="rsm-pick"><button type="button" aria-pressed="{str(chosen).lower()}" '
        f'aria-label="Choose run {row.id}: {title}"></button></td><th scope="row">{name}</th>'
        + "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells)
        + "</tr>"
    )


def badge(state: str) -> str:
    """Return a state as a word in its colour."""
    word, tone = live.STATES.get(state, (state, "quiet"))
    return f'<span class="rsm-badge rsm-{tone}">{escape(word)}</span>'


def _small(text: str) -> str:
    return f"<small>{escape(text)}</small>" if text else ""


def _moment(seconds: float) -> str:
    if seconds <= 0:
        return "–"
    try:
        moment = time.localtime(seconds)
    except (OverflowError, ValueError, OSError):
        return "–"
    iso = time.strftime("%Y-%m-%dT%H:%M:%S%z", moment)
    return f'<time datetime="{iso}">{time.strftime("%d %b %Y, %H:%M", moment)}</time>'


def chosen_html(supervisor: Supervisor, run: Run, row: Row, mine: bool) -> str:
    """Return the head of the bar with a run's buttons: its name and a sentence about it."""
    refused = "This run belongs to somebody else: you can open it, but not change or export it."
    foreign = "" if mine else _small(refused)
    return (
        f'<div class="rsm-run-head"><h2>{escape(history.title(row))}</h2>{badge(row.state)}</div>'
        f'<p class="rsm-id">Run <code>{row.id}</code></p>'
        f'<p class="rsm-message">{escape(without_paths(_sentence(supervisor, run, row)))}{foreign}</p>'
    )


def _sentence(supervisor: Supervisor, run: Run, row: Row) -> str:
    if row.state == "queued":
        return live.waiting_line(supervisor.place(row.id), supervisor.trouble)
    if row.state == "stopping":
        return "Stopping: what was learned is saved, then it ends."
    if row.state in ("failed", "interrupted"):
        return row.error or "It ended without a message; its log on the Train page tells more."
    report = run.folder.read_report() if row.state not in LIVE else None
    try:
        return verdict(report) if report else row.message
    except (AttributeError, TypeError, ValueError):  # a damaged report
        return row.message


def losses(run: Run, row: Row) -> str:
    """Say in a question what would be lost with a run."""
    updates, pairs = max(run.status().updates, len(run.folder.read_metrics())), len(run.folder.read_pairs())
    checkpoints = len(list(run.folder.checkpoints.glob("*.safetensors")))
    lost = [
        "its settings",
        "the adapter" if run.folder.adapter.is_dir() else "",
        _counted(pairs, "pair of pictures", "pairs of pictures"),
        _counted(updates, "update of measurements", "updates of measurements"),
        _counted(checkpoints, "checkpoint to resume from", "checkpoints to resume from"),
        "the report" if run.folder.report.is_file() else "",
    ]
    lost = [part for part in lost if part]
    listed = f"{', '.join(lost[:-1])} and {lost[-1]}" if len(lost) > 1 else lost[0]
    took = f" ({history.size(row.bytes)})" if row.bytes else ""
    return (
        f"Delete run {row.id}, {history.title(row)}? Lost for good: {listed}{took}. "
        "An export made before keeps what is worth keeping."
    )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}" if count else ""
