"""What follows the three choices of the train page: prompt set, time budget and advanced settings."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from rsm_app.jobs.limits import Limits
from rsm_app.ui import fields
from rsm_app.ui.form import CUSTOM
from trainers.config import RunConfig
from trainers.methods import METHODS
from trainers.presets import default_config

BUDGETS = (60, 120, 300, 900)


def budget_options() -> list[tuple[str, str]]:
    """Return the time budgets as radio choices, the newcomer's own among them."""
    seconds = sorted({*BUDGETS, round(RunConfig.budget_seconds)})
    return [*((_budget_label(s), str(s)) for s in seconds), ("Custom", CUSTOM)]


def _budget_label(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


def shown_budget(seconds: float) -> list[object]:
    """Return what the choice of the time budget and the field beside it show for so many seconds."""
    listed = f"{seconds:g}" in [value for _, value in budget_options()]
    return [f"{seconds:g}", gr.skip()] if listed else [CUSTOM, seconds]


def asked_seconds(budget: str | None, custom_seconds: float | None) -> float | None:
    """Return the seconds that the two hold, as the browser sent them; None for none."""
    try:
        return float(custom_seconds if budget == CUSTOM else budget)
    except (TypeError, ValueError):
        return None


def tuned_of(config: RunConfig) -> list[object]:
    """Return what follows the choices: the built-in prompt set, the seconds, the advanced inputs' values."""
    return [config.prompts, config.budget_seconds, *fields.values_of(config)]


def presets_for(model: str, estimator: str | None, reward: str, limits: Limits) -> list[object]:
    """Return ``tuned_of`` the tuned settings of a combination; the mixture may be unfinished.

    A time budget that is longer than one may ask for here gives way to the longest.
    """
    head, seconds, *values = tuned_of(default_config(model, estimator or METHODS.names()[0], reward))
    return [head, limits.within(seconds), *values]


def changes(tuned: Sequence[object], before: Sequence[object], asked: float | None) -> list[object]:
    """Return what the inputs are to show when other tuned settings take the place of some.

    The prompt set is set anew where another fits, all advanced inputs where any of them differs: what
    somebody chose otherwise stays only as long as the tuned settings do. A time budget of one's own stays.

    Args:
        tuned: The settings of the new choices.
        before: Those of the choices before; empty for none.
        asked: The seconds that the form holds.

    Returns:
        Prompt set, choice of the time budget, its field, then the advanced inputs.
    """
    head, seconds, *values = tuned
    old_head, old_seconds, *old = before or (None, None)
    return [
        head if head != old_head else gr.skip(),
        *(shown_budget(seconds) if asked == old_seconds != seconds else [gr.skip()] * 2),
        *(values if values != old else [gr.skip()] * len(values)),
    ]
