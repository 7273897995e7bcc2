"""The about page: reward score matching in plain words, and what there is to choose from.

Tables are written from the tables of the engine, and the documents from their own files when they are opened,
so nothing here can fall behind.
"""

from __future__ import annotations

import math
import re
from html import escape

import gradio as gr

from rsm_app.jobs.store import ROOT
from rsm_app.ui import about_text as text
from rsm_app.ui.form import unavailable
from trainers.method import Method
from trainers.method_docs import guidance, methods_page, settings
from trainers.methods import METHODS
from trainers.models import MODELS, ModelSpec
from trainers.rewards import REWARDS, RewardSpec
from trainers.rewards.weights import size_words

DIAGRAM, METRICS = ROOT / "assets" / "loss.svg", ROOT / "docs" / "METRICS.md"
_QUIET = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_OWN_COLUMNS = ("works with", "needs", "rollouts", "guidance G", "source")


def build() -> None:
    """Render the page."""
    _words(text.WHAT, "about-what")
    with gr.Row(elem_id="about-loss"):
        with gr.Column(min_width=300):
            gr.HTML(_diagram(), padding=False, elem_classes="rsm-plain")
        with gr.Column(min_width=300):
            gr.Markdown(text.LOSS, latex_delimiters=text.DELIMITERS, elem_classes="rsm-explain")
    _words(text.METHODS_INTRO + methods_table(), "about-methods")
    _words(text.REWARDS_INTRO + rewards_table(), "about-rewards")
    _words(text.MODELS_INTRO + models_table(), "about-models")
    _words(text.NUMBERS, "about-numbers")
    _words(text.MORE, "about-more")
    _document("Methods: every row with its equation and source", "methods", methods_page)
    _document("Metrics: every number with its formula and unit", "metrics", _metrics)


def _words(html: str, name: str) -> None:
    gr.HTML(
        f'<section class="rsm-words">{html}</section>', elem_id=name, padding=False, elem_classes="rsm-plain"
    )


def _document(title: str, name: str, read) -> None:
    """Render a document that is read when it is opened."""
    with gr.Accordion(title, open=False, elem_id=f"about-{name}-box") as box:
        shown = gr.Markdown(text.OPENING, latex_delimiters=[], elem_id=f"about-{name}-text",
                            elem_classes="rsm-document")  # fmt: skip
    box.expand(lambda: _readable(read), None, shown, **_QUIET)


def _readable(read) -> str:
    """Return a document without what only its file can show: pictures beside it, and links within it."""
    try:
        document = read()
    except OSError:
        return text.MISSING
    document = re.sub(r"^!\[.*\]\(.*\)\n", "", document, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", document)


def _metrics() -> str:
    return METRICS.read_text(encoding="utf-8")


def _diagram() -> str:
    return f'<figure class="rsm-figure">{DIAGRAM.read_text(encoding="utf-8")}</figure>'


def methods_table() -> str:
    """Return every row of the method table, its further settings folded away."""
    heads = ("Method", "Needs", "Works with", "Rollouts", "Guidance G", "Source")
    return _table("Methods", heads, [_method_cells(method) for method in METHODS])


def _method_cells(method: Method) -> list[str]:
    parts = settings(method)
    rest = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in parts.items()
        if name not in _OWN_COLUMNS
    )
    return [
        f"{_titled(method)}<details><summary>More about {escape(method.title)}</summary>"
        f"<p>{escape(method.idea)}</p><dl>{rest}</dl></details>",
        escape(parts["needs"]),
        escape(parts["works with"]),
        escape(parts["rollouts"]),
        escape(guidance(method)),
        _linked(method.origin),
    ]


def rewards_table() -> str:
    """Return every row of the reward table."""
    heads = ("Reward", "Kind", "Range", "Unit", "Cost", "Needs", "Source")
    return _table("Rewards", heads, [_reward_cells(spec) for spec in REWARDS])


def _reward_cells(spec: RewardSpec) -> list[str]:
    return [
        _titled(spec),
        "differentiable" if spec.differentiable else "black box",
        f"{_bound(spec.low)} to {_bound(spec.high)}",
        escape(spec.unit),
        escape(spec.cost),
        _needs(spec),
        _linked(spec.source),
    ]


def _needs(spec: RewardSpec) -> str:
    """Say what a reward downloads or asks, and what keeps it from running here."""
    told = [
        f"{escape(part.repo)} (about {size_words(part.megabytes)}, licence: {escape(part.licence)})"
        for part in spec.weights
    ]
    if spec.check:
        told.append("an endpoint")
    why = " ".join(unavailable(spec.name))
    return ("<br>".join(told) or "nothing") + (f"<p>Not here: {escape(why)}</p>" if why else "")


def _bound(value: float) -> str:
    return ("−" if value < 0 else "") + (f"{abs(value):g}" if math.isfinite(value) else "∞")


def models_table() -> str:
    """Return every row of the model table."""
    return _table(
        "Base models", ("Model", "Family", "From", "Prompts"), [_model_cells(spec) for spec in MODELS]
    )


def _model_cells(spec: ModelSpec) -> list[str]:
    place = escape(spec.location)
    link = f'<a href="https://huggingface.co/{place}" target="_blank" rel="noopener">{place}</a>'
    return [
        _titled(spec),
        escape(spec.family),
        link if "/" in spec.location else "comes with the app",
        escape(spec.prompts if spec.embedded else f"{spec.prompts}, or the reward's own"),
    ]


def _titled(spec) -> str:
    return f"<b>{escape(spec.title)}</b> <code>{escape(spec.name)}</code><p>{escape(spec.summary)}</p>"


def _linked(source: str) -> str:
    """Escape a source and link its arXiv numbers."""
    link = r'<a href="https://arxiv.org/abs/\1" target="_blank" rel="noopener">arXiv \1</a>'
    return _ARXIV.sub(link, escape(source))


def _table(caption: str, heads: tuple[str, ...], rows: list[list[str]]) -> str:
    """Return a table that turns into cards on a phone, where every cell shows its column's name."""
    head = "".join(f'<th scope="col">{title}</th>' for title in heads)
    body = ""
    for first, *others in rows:
        cells = "".join(
            f'<td data-column="{name}">{cell}</td>' for name, cell in zip(heads[1:], others, strict=True)
        )
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return (
        f'<table class="rsm-list"><caption class="rsm-hidden">{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
