"""Where on the form a problem is told: below its field, or on top of its section of advanced settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

import gradio as gr

from rsm_app.ui.fields import ADVANCED, GROUP_TITLES, group_of
from rsm_app.ui.machine_paths import without_paths
from trainers.errors import InputError

MIXTURE, PROMPTS, BUDGET, SEED = "mixture", "prompts", "budget", "seed"
PLACES = (MIXTURE, PROMPTS, BUDGET, SEED, *GROUP_TITLES)
_QUOTED = re.compile(r"'(\w+)'")
_FIELDS = {"seed": SEED, "budget_seconds": BUDGET, "prompts": PROMPTS}


class FormError(InputError):
    """The form cannot be taken as it is.

    Args:
        found: Each problem's sentence and the place it belongs to; empty for the form as a whole.
    """

    def __init__(self, found: Mapping[str, str]):
        super().__init__(*found)
        self.found = dict(found)


def place_of(sentence: str) -> str:
    """Return the place of the first setting that a sentence of the engine names; empty when it names none."""
    return next(filter(None, map(place_of_field, _QUOTED.findall(sentence))), "")


def place_of_field(name: str) -> str:
    """Return the place of a setting; empty when it has none on the form."""
    return group_of(name) if name in ADVANCED else _FIELDS.get(name, "")


def line(place: str) -> gr.HTML:
    """Render a place's own line, empty for now."""
    return gr.HTML(visible=False, elem_id=f"told-{place}", padding=False, elem_classes="rsm-plain")


def tell(lines: Mapping[str, gr.HTML], error: InputError | None) -> dict:
    """Return what the lines show: a place's sentences, and nothing where all is well."""
    found: Mapping[str, str] = getattr(error, "found", {})
    return {
        html: gr.update(value=_sentences([text for text, at in found.items() if at == place]), visible=True)
        if place in found.values()
        else gr.update(value="", visible=False)
        for place, html in lines.items()
    }


def open_sections(sections: Mapping[str, gr.Accordion], error: InputError | None) -> dict:
    """Return the advanced sections that hold a problem, opened; the others stay as they are."""
    wrong = set(getattr(error, "found", {}).values())
    return {
        section: gr.update(open=True) if name in wrong or (not name and wrong & set(sections)) else gr.skip()
        for name, section in sections.items()
    }


def _sentences(texts: Sequence[str]) -> str:
    return "".join(f'<p class="rsm-wrong" role="alert">{escape(text)}</p>' for text in texts)


def problems_html(problems: list[str], head: str = "Before this can start:") -> str:
    """Return a list of what is wrong, below a head."""
    items = "".join(f"<li>{escape(without_paths(text))}</li>" for text in problems)
    return f'<div class="rsm-problems" role="alert"><b>{head}</b><ul>{items}</ul></div>'
