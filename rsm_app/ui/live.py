"""What a run is doing, as HTML: stepper, progress bar, figures, messages; and the empty state."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from html import escape

from rsm_app.jobs.exporting import without_folders
from rsm_app.jobs.queue import Place
from rsm_app.jobs.store import Run
from rsm_app.ui.machine_paths import without_paths
from rsm_app.ui.result import duration, number, reward_title
from trainers.methods import METHODS
from trainers.models import MODELS
from trainers.run_folder import RunStatus

STEPS = (
    ("load", "Load"),
    ("baseline", "Before"),
    ("train", "Train"),
    ("evaluate", "After"),
    ("save", "Save"),
)
WAITING = {
    "load": "Loading the base model and the reward.",
    "baseline": "Drawing the held-out pictures with the untouched model, to compare with later.",
    "train": "Sampling pictures, scoring them and nudging the model.",
    "evaluate": "Drawing the same held-out pictures again with the trained model.",
    "save": "Saving the adapter and checking that plain diffusers loads it.",
}
STATES = {
    "queued": ("Waiting", "quiet"),
    "running": ("Running", "busy"),
    "stopping": ("Stopping", "busy"),
    "stopped": ("Stopped early", "good"),
    "succeeded": ("Finished", "good"),
    "failed": ("Failed", "bad"),
    "interrupted": ("Interrupted", "bad"),
}
CURVE_WAIT = '<p class="rsm-curve-wait">The reward curve appears here after two updates.</p>'
_EMPTY_STEPS = (
    ("Before", "Held-out pictures are drawn with the untouched model."),
    ("Train", "The model draws, the reward scores, a small adapter (LoRA) learns. The curve appears here."),
    ("After", "The same pictures, same seeds, with the adapter: side by side, with numbers."),
)


def empty_html(settings_line: str, waiting: bool = False) -> str:
    """Return what the run panel shows when there is no run.

    Args:
        settings_line: What Start does with the choices as they come.
        waiting: Whether the page is still looking whether there is one.
    """
    busy = ' aria-busy="true"' if waiting else ""
    steps = "".join(f"<li><b>{title}</b><span>{text}</span></li>" for title, text in _EMPTY_STEPS)
    return (
        f'<section class="rsm-empty" aria-label="No run yet"{busy}><h2>No run yet</h2>'
        f"<p>Press <b>Start</b>. With the choices as they come, {escape(settings_line)}</p>"
        f"<ol>{steps}</ol></section>"
    )


def missing_html(run_id: str) -> str:
    """Return what the run panel shows when the address names a run that is not here."""
    return (
        '<section class="rsm-empty" aria-label="Run not found"><h2>No such run</h2>'
        f"<p>There is no run called <code>{escape(run_id[:64])}</code> that you may see: it may have been "
        "deleted, or its owner does not share it. Press <b>Start</b> to begin a new one.</p></section>"
    )


def run_title(settings: dict) -> str:
    """Say in one line what a run does."""
    model, estimator = str(settings.get("model", "")), str(settings.get("estimator", ""))
    names = (
        model_title(model),
        reward_title(str(settings.get("reward", ""))),
        METHODS.get(estimator).title if estimator in METHODS else estimator,
    )
    return " · ".join(name for name in names if name)


def model_title(name: str) -> str:
    """Return how a base model is called: its title, its id on the Hub, or the name of its folder."""
    return MODELS.get(name).title if name in MODELS else without_folders(name)


def waiting_line(place: Place | None, trouble: str) -> str:
    """Say where a waiting run stands, when it may start, and what holds the queue up if anything does."""
    if place is None:
        return "Waiting in the queue."
    where = f"Position {place.position} of {place.length} in the queue"
    if place.seconds is None:
        return f"{where}; no device of this machine can take it."
    when = "expected to start in a moment" if place.seconds < 1 else "expected to start in about "
    when += duration(place.seconds) if place.seconds >= 1 else ""
    return f"{where}; {when}." + (f" {without_paths(trouble)}" if trouble else "")


def status_html(run: Run, status: RunStatus, last: dict | None, first: dict | None, waits: str = "") -> str:
    """Return the head of the run panel.

    Args:
        run: The run.
        status: Its reconciled status.
        last: The latest line of its metrics, if any.
        first: The first line of its metrics, if any.
        waits: What ``waiting_line`` says of it while it is queued.
    """
    word, tone = STATES.get(status.state, (status.state, "quiet"))
    return (
        f'<section class="rsm-run" aria-label="Run" data-state="{escape(status.state)}" '
        f'data-phase="{escape(status.phase)}"><div class="rsm-run-head">'
        f'<h2>{escape(run_title(run.settings()))}</h2><span class="rsm-badge rsm-{tone}">{word}</span></div>'
        f'<p class="rsm-id">Run <code>{escape(run.id)}</code></p>{_stepper(status)}{_bar(status)}'
        f"{_message(run, status, waits)}{_figures(run, status, first, last)}</section>"
    )


def _message(run: Run, status: RunStatus, waits: str) -> str:
    """Return what the run is doing; after a failure, the cause and what to do about it."""
    text = without_paths(waits or _sentence(status))
    if status.state != "failed":
        return f'<p class="rsm-message" role="status">{escape(text)}</p>'
    cause, advice = cause_and_advice(text, resumable=run.resumable(status))
    return (
        '<div class="rsm-message rsm-failure" role="alert"><p><b>What happened</b> '
        f"{escape(cause)}</p><p><b>What to do</b> {escape(advice)}</p></div>"
    )


def cause_and_advice(text: str, resumable: bool) -> tuple[str, str]:
    """Split the sentences of a failure into what happened and what to do.

    Args:
        text: What the worker said: its first sentence is the cause, the others are advice.
        resumable: Whether Retry goes on from the last checkpoint, or begins anew with the same settings.
    """
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text.strip(), maxsplit=1)
    retry = (
        "Retry goes on from the last checkpoint."
        if resumable
        else "Retry starts it anew with the same settings; Duplicate settings lets you change them first."
    )
    return parts[0], " ".join([*parts[1:], retry])


def legend_html(colours: Mapping[str, str]) -> str:
    """Return which colour belongs to which line."""
    items = "".join(
        f'<li><span class="rsm-key" style="background:{escape(colour)}"></span>{escape(title)}</li>'
        for title, colour in colours.items()
    )
    return f'<ul class="rsm-legend" aria-label="Colours of the lines">{items}</ul>'


def strip_html(probes: Sequence[dict]) -> str:
    """Return the prompts of the pictures that are drawn again and again, from left to right."""
    prompts = probes[0].get("prompts") if probes else None
    items = "".join(f"<li>{escape(str(text))}</li>" for text in prompts or [])
    if not items:
        return ""
    return (
        f'<details class="rsm-more"><summary>Prompts, from left to right</summary><ol>{items}</ol></details>'
    )


def symptoms_html(texts: Sequence[str]) -> str:
    """Return the warning signs of a run as a list; empty when there are none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    if not items:
        return ""
    return f'<section class="rsm-symptoms" role="alert"><b>Watch out</b><ul>{items}</ul></section>'


def _stepper(status: RunStatus) -> str:
    names = [name for name, _ in STEPS]
    done = status.state in ("succeeded", "stopped")
    current = len(names) if done or status.phase == "done" else names.index(status.phase)
    if status.state == "queued":
        current = -1
    items = []
    for index, (_, title) in enumerate(STEPS):
        if index < current:
            items.append(f'<li class="done">{title}<span class="rsm-hidden"> done</span></li>')
        elif index == current:
            kind = "now" if status.live else "broken"
            items.append(f'<li class="{kind}" aria-current="step">{title}</li>')
        else:
            items.append(f"<li>{title}</li>")
    return f'<ol class="rsm-steps" aria-label="Phases">{"".join(items)}</ol>'


def _bar(status: RunStatus) -> str:
    share = 1.0 if status.state in ("succeeded", "stopped") else min(1.0, max(0.0, status.progress))
    busy = " rsm-moving" if status.live else ""
    return (
        f'<div class="rsm-bar{busy}" role="progressbar" aria-label="Progress" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share * 100:.0f}">'
        f'<i style="width:{share * 100:.1f}%"></i></div>'
    )


def _sentence(status: RunStatus) -> str:
    if status.state == "failed":
        return status.error or "The run failed without a message; its folder's log.txt tells more."
    if status.state == "interrupted":
        told = status.error or status.message
        return f"{told} What was saved is intact: press Resume to continue from the last checkpoint."
    if status.state == "stopping":
        return "Stopping: what was learned is saved, pictures are drawn for a few seconds, then it ends."
    if status.state == "stopped":
        told = "everything learned until then was evaluated and saved" if status.phase == "done" else ""
        return " ".join(
            filter(None, (f"Stopped early; {told}." if told else status.message, status.stop_reason))
        )
    if status.state == "succeeded":
        return "Finished: the adapter is saved and the comparison is below."
    return status.message or WAITING.get(status.phase, "Waiting for the worker.")


def _figures(run: Run, status: RunStatus, first: dict | None, last: dict | None) -> str:
    elapsed = (time.time() if status.live else status.heartbeat) - status.started if status.started else None
    reward = "–"
    if first and last:
        reward = f"{number(first.get('reward_mean'))} → {number(last.get('reward_mean'))}"
    tiles = [
        ("Time left", f"about {duration(status.eta_seconds)}")
        if status.live and status.eta_seconds is not None
        else ("Time", duration(elapsed)),
        ("Updates", f"{status.updates}"),
        ("Pictures", f"{status.images_sampled}"),
        ("Pictures/s", number(status.images_per_second) if status.images_per_second else "–"),
        ("Training reward", reward),
    ]
    cells = "".join(f"<div><dt>{title}</dt><dd>{escape(value)}</dd></div>" for title, value in tiles)
    return f'<dl class="rsm-figures">{cells}</dl>'
