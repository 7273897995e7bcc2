"""What the latest push of a run is doing, as HTML; apart from what the run itself is doing."""

from __future__ import annotations

from html import escape

from rsm_app.hub.push_status import PHASES, PushStatus
from rsm_app.ui.history import size

STATES = {
    "none": ("Not published from here", "quiet"),
    "running": ("Publishing", "busy"),
    "waiting": ("Waiting for the Hub", "busy"),
    "succeeded": ("Published", "good"),
    "failed": ("Failed", "bad"),
    "cancelled": ("Cancelled", "quiet"),
    "interrupted": ("Interrupted", "bad"),
}
_TITLES = {"prepare": "Gather", "create": "Repository", "upload": "Send", "commit": "Revision"}


def push_html(status: PushStatus) -> str:
    """Return the state of a push: steps, bytes, result or what went wrong."""
    word, tone = STATES[status.state]
    if status.state == "none":
        return (
            '<section class="rsm-run" aria-label="Publication" data-push="none"><p class="rsm-message">'
            "This run was not published yet. Check the repository, then publish.</p></section>"
        )
    repo = f" as {escape(status.repo)}" if status.repo else ""
    return (
        f'<section class="rsm-run" aria-label="Publication" data-push="{escape(status.state)}" '
        f'data-phase="{escape(status.phase)}"><div class="rsm-run-head"><h2>Publication{repo}</h2>'
        f'<span class="rsm-badge rsm-{tone}">{word}</span></div>{_steps(status)}{_bar(status)}'
        f"{_amount(status)}{_told(status)}{_links(status)}</section>"
    )


def _steps(status: PushStatus) -> str:
    current = PHASES.index(status.phase) if status.phase in PHASES else 0
    items = []
    for index, title in enumerate(_TITLES.values()):
        if index < current:
            items.append(f'<li class="done">{title}<span class="rsm-hidden"> done</span></li>')
        elif index == current:
            kind = "now" if status.at_work else "broken"
            items.append(f'<li class="{kind}" aria-current="step">{title}</li>')
        else:
            items.append(f"<li>{title}</li>")
    return f'<ol class="rsm-steps rsm-four" aria-label="Phases">{"".join(items)}</ol>'


def _bar(status: PushStatus) -> str:
    share = status.progress
    return (
        '<div class="rsm-bar" role="progressbar" aria-label="Sent" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share * 100:.0f}"><i style="width:{share * 100:.1f}%"></i></div>'
    )


def _amount(status: PushStatus) -> str:
    if not status.bytes_total:
        return ""
    return (
        f'<p class="rsm-facts">{size(status.bytes_done)} of {size(status.bytes_total)} in '
        f"{status.files_total} files. What the Hub has already is not sent again.</p>"
    )


def _told(status: PushStatus) -> str:
    if not status.error:
        return f'<p class="rsm-message" role="status">{escape(status.message)}</p>' if status.message else ""
    remedy = f"<p><b>What to do</b> {escape(status.remedy)}</p>" if status.remedy else ""
    return (
        f'<div class="rsm-message rsm-failure" role="alert"><p><b>What happened</b> {escape(status.error)}'
        f"</p>{remedy}</div>"
    )


def _links(status: PushStatus) -> str:
    if status.state != "succeeded" or not status.url.startswith(("https://", "http://")):
        return ""
    commit = f" · {_link(status.commit_url, f'revision {status.commit[:8]}')}" if status.commit else ""
    return f'<p class="rsm-links">{_link(status.url, "Open it on the Hub")}{commit}</p>'


def _link(address: str, text: str) -> str:
    return f'<a href="{escape(address)}" target="_blank" rel="noopener">{escape(text)}</a>'
