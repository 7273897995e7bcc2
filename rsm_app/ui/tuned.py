"""What follows the three choices of the train page: prompt set, time budget and advanced settings.

The server proposes, the page applies: on a slow server somebody may have typed into a field between a choice
and its answer, and what was typed last stays.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from rsm_app.jobs.limits import Limits
from rsm_app.ui import fields
from rsm_app.ui.form import CUSTOM
from trainers.config import RunConfig
from trainers.methods import METHODS
from trainers.presets import default_config

BUDGETS = (60, 120, 300, 900)
_FOLLOWING = 3 + len(fields.ADVANCED)
# What the inputs held at the moment of a choice.
REMEMBER = f"(...all) => {{ window.rsmHeld = all.slice(0, {_FOLLOWING}); return []; }}"
# An input that holds something else by now was changed by somebody. What is put into one counts as held:
# the answer to the next choice may be on its way already. The time budget stays unless it is the tuned one.
APPLY = f"""(proposed, ...all) => {{
  const now = all.slice(0, {_FOLLOWING}), held = window.rsmHeld ??= [...now];
  const {{values, budget, instead_of}} = JSON.parse(proposed);
  const seconds = Number(now[1] === '{CUSTOM}' ? now[2] : now[1]);
  const wanted = seconds === instead_of ? {{...values, ...budget}} : values;
  const free = (value, place) => place in budget || value === held[place];
  return now.map((value, place) =>
    place in wanted && free(value, place) ? (held[place] = wanted[place]) : {{__type__: 'update'}});
}}"""


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


def tuned_of(config: RunConfig) -> list[object]:
    """Return what follows the choices: the built-in prompt set, the seconds, the advanced inputs' values."""
    return [config.prompts, config.budget_seconds, *fields.values_of(config)]


def presets_for(model: str, estimator: str | None, reward: str, limits: Limits) -> list[object]:
    """Return ``tuned_of`` the tuned settings of a combination; the mixture may be unfinished.

    A time budget that is longer than one may ask for here gives way to the longest.
    """
    head, seconds, *values = tuned_of(default_config(model, estimator or METHODS.names()[0], reward))
    return [head, limits.within(seconds), *values]


@dataclass(frozen=True)
class Followed:
    """What the form has followed: the answer to the last choice.

    Attributes:
        lists: Model, reward and whether every estimator is listed: what the list of estimators depends on.
        settings: The tuned settings, see ``tuned_of``.
    """

    lists: tuple[str, str, bool]
    settings: list[object]


def proposal(tuned: Sequence[object], before: Sequence[object]) -> str:
    """Return what the inputs are to show when other tuned settings take the place of some.

    The prompt set is set anew where another fits, all advanced inputs where any of them differs: what
    somebody chose otherwise stays only as long as the tuned settings do. A time budget of one's own stays.

    Args:
        tuned: The settings of the new choices.
        before: Those of the choices before.

    Returns:
        JSON for ``APPLY``. ``values``: place among prompt set, choice of the time budget, its field and the
        advanced inputs → value; those that stay are not in it. ``budget``: the same for the time budget, to
        be set where the form holds ``instead_of`` seconds.
    """
    head, seconds, *values = tuned
    old_head, old_seconds, *old = before
    wanted = {} if head == old_head else {0: head}
    wanted |= {} if values == old else dict(enumerate(values, 3))
    budget = {} if seconds == old_seconds else dict(enumerate(shown_budget(seconds), 1))
    return json.dumps({"values": wanted, "budget": budget, "instead_of": old_seconds})
