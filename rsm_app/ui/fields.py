"""Advanced settings as inputs, generated from the fields of ``RunConfig``: one source for help and range.

Inputs carry no range of their own: every value is checked once, by ``trainers.presets.build_config``, so
that all problems of a form are reported together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import gradio as gr

from trainers.config import FIELDS, RunConfig, field_help
from trainers.prompts import builtin_sets

MAIN_FIELDS = ("model", "reward", "estimator", "prompts", "seed", "budget_seconds")
ADVANCED = tuple(name for name in FIELDS if name not in MAIN_FIELDS)
GROUP_TITLES = {
    "what": "Length and held-out prompts",
    "rollout": "Sampling while training",
    "estimator": "Method",
    "optimiser": "Optimiser and LoRA",
    "evaluation": "Before/after comparison",
    "machine": "Machine",
}
_WORDS = {"kl": "KL", "lora": "LoRA"}


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


def build_fields(config: RunConfig) -> list[gr.components.Component]:
    """Render one input per advanced field, section by section, in the order of ``ADVANCED``."""
    settings = dataclasses.asdict(config)
    inputs: dict[str, gr.components.Component] = {}
    for group, title in GROUP_TITLES.items():
        names = [name for name in ADVANCED if FIELDS[name].metadata["group"] == group]
        if not names:
            continue
        gr.HTML(f'<h3 class="rsm-group">{title}</h3>')
        with gr.Row(elem_classes="rsm-fields"):
            for name in names:
                inputs[name] = _build_input(name, settings)
    return [inputs[name] for name in ADVANCED]


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
