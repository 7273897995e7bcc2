"""Advanced settings as inputs, generated from the fields of ``RunConfig``: one source for help and range.

Inputs carry no range of their own: every value is checked once, by ``trainers.presets.build_config``, so
that all problems of a form are reported together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import gradio as gr

from trainers.config import FIELDS, RunConfig, field_help
from trainers.prompts import builtin_sets

MAIN_FIELDS = ("model", "reward", "estimator", "prompts", "seed", "budget_seconds")
# Endpoints are for the shell and the app's owner: a visitor must not send requests from this machine.
ADVANCED = tuple(
    name for name in FIELDS if name not in MAIN_FIELDS and FIELDS[name].metadata["group"] != "endpoint"
)
GROUP_TITLES = {
    "what": "Length and held-out prompts",
    "rollout": "Sampling while training",
    "estimator": "Method",
    "optimiser": "Optimiser and LoRA",
    "evaluation": "Before/after comparison",
    "machine": "Machine",
}
_WORDS = {"kl": "KL", "lora": "LoRA", "ema": "EMA"}


def label(name: str) -> str:
    """Return a field's name as a person reads it: ``kl_weight`` becomes ``KL weight``."""
    words = [_WORDS.get(word, word) for word in name.split("_")]
    return " ".join([words[0] if words[0] in _WORDS.values() else words[0].capitalize(), *words[1:]])


def shown(name: str, value: object) -> object:
    """Return a setting's value as its input shows it."""
    if isinstance(value, tuple | list):
        return ", ".join(str(part) for part in value)
    return value


def values_of(config: RunConfig) -> list[object]:
    """Return what every advanced input shows for a config, in the order of ``ADVANCED``."""
    settings = dataclasses.asdict(config)
    return [shown(name, settings[name]) for name in ADVANCED]


def read_values(values: Sequence[object]) -> dict[str, object]:
    """Map the inputs' values back to field names; an emptied number keeps its preset."""
    optional = {"guidance_scale", "others"}
    return {
        name: "" if value is None else value
        for name, value in zip(ADVANCED, values, strict=True)
        if name in optional or value not in (None, "")
    }


def group_of(name: str) -> str:
    """Return the section of an advanced field."""
    return FIELDS[name].metadata["group"]


def build_fields(config: RunConfig, told: Callable[[str], object]) -> tuple[list, dict[str, gr.Accordion]]:
    """Render one input per advanced field and return them in the order of ``ADVANCED``, and the sections.

    Each section opens by itself: the page makes a closed one's inputs when it is opened, and all of them at
    once take it a quarter of a second.

    Args:
        config: What the inputs show.
        told: Renders what stands above a section's inputs.
    """
    settings = dataclasses.asdict(config)
    inputs: dict[str, gr.components.Component] = {}
    sections: dict[str, gr.Accordion] = {}
    for group, title in GROUP_TITLES.items():
        with gr.Accordion(title, open=False, elem_id=f"group-{group}", elem_classes="rsm-group") as section:
            told(group)
            with gr.Row(elem_classes="rsm-fields"):
                for name in ADVANCED:
                    if group_of(name) == group:
                        inputs[name] = _build_input(name, settings)
        sections[group] = section
    return [inputs[name] for name in ADVANCED], sections


def _build_input(name: str, settings: Mapping[str, object]) -> gr.components.Component:
    metadata = FIELDS[name].metadata
    common = {
        "value": shown(name, settings[name]),
        "label": label(name),
        "info": _info(name, metadata),
        "elem_id": f"set-{name}",
        "min_width": 200,
    }
    if metadata["choices"]:
        return gr.Dropdown(list(metadata["choices"]), **common)
    if name == "heldout_prompts":  # never a path: a visitor must not name files of this machine
        return gr.Dropdown(list(builtin_sets()), **common)
    if isinstance(settings[name], tuple | list | str):
        return gr.Textbox(lines=1, max_lines=1, **common)
    return gr.Number(**common)


def _info(name: str, metadata: Mapping[str, object]) -> str:
    low, high = metadata["low"], metadata["high"]
    span = "" if low is None else f" From {low:g} to {high:g}."
    return field_help(name) + span
