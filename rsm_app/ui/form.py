"""The form of the train page as data: options, what fits what, and checking before a worker starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rsm_app.ui import fields
from trainers.cli import command_for
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.methods import METHODS, fitting_methods, misfit
from trainers.models import MODELS
from trainers.presets import build_config, default_config
from trainers.prompts import builtin_sets, check_prompts, load_prompts
from trainers.rewards import REWARDS, parse_mixture

CUSTOM = "custom"
BUILTIN, PASTE, FILE = "Built-in set", "Paste", "Upload a file"
PROMPT_SOURCES = (BUILTIN, PASTE, FILE)
BUDGETS = (60, 120, 300, 900)
MAX_UPLOAD_BYTES = 1_000_000


@dataclass(frozen=True)
class Form:
    """What the page's inputs hold, as the browser sent it; nothing is checked yet."""

    model: str | None
    reward: str | None
    mixture: str | None
    estimator: str | None
    prompt_source: str | None
    prompt_set: str | None
    pasted: str | None
    upload: str | None
    budget: str | None
    custom_seconds: float | None
    seed: float | None
    advanced: tuple

    @property
    def reward_text(self) -> str:
        """The reward as the engine reads it."""
        return (self.mixture or "").strip() if self.reward == CUSTOM else (self.reward or "")


def options(registry) -> list[tuple[str, str]]:
    """Return a table's rows as radio choices; the label's first line is the title."""
    return [(f"{spec.title}\n{spec.summary}", spec.name) for spec in registry.specs()]


def reward_options() -> list[tuple[str, str]]:
    """Return the rewards, each with its kind, and the custom mixture."""
    kinds = {True: "Differentiable.", False: "Black box."}
    rows = [(f"{s.title}\n{s.summary} {kinds[s.differentiable]}", s.name) for s in REWARDS.specs()]
    return [*rows, ("Custom mixture\nSeveral rewards with weights, written as text.", CUSTOM)]


def budget_options() -> list[tuple[str, str]]:
    """Return the time budgets, the newcomer's own among them."""
    seconds = sorted({*BUDGETS, round(RunConfig.budget_seconds)})
    return [*((_budget_label(s), str(s)) for s in seconds), ("Custom", CUSTOM)]


def _budget_label(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


def newcomer_config() -> RunConfig:
    """Return the settings a newcomer gets by pressing Start."""
    return default_config(RunConfig.model, RunConfig.estimator, RunConfig.reward)


def differentiable(reward: str) -> bool | None:
    """Whether a reward or mixture passes gradients; None when the text names no reward."""
    try:
        return all(REWARDS.get(name).differentiable for name, _ in parse_mixture(reward))
    except InputError:
        return None


@dataclass(frozen=True)
class Fit:
    """What the three choices allow.

    Attributes:
        choices: Estimators that can be selected, as radio choices.
        estimator: The selected one: as asked for if it fits, else the first that does.
        notes: HTML that names the estimators that do not fit and why, and a switch if there was one.
    """

    choices: list[tuple[str, str]]
    estimator: str | None
    notes: str


def fit(model: str, reward: str, estimator: str | None) -> Fit:
    """Decide which estimators fit a model and a reward.

    Args:
        model: A name of the model table.
        reward: A reward or mixture; one that cannot be read yet counts as a black box.
        estimator: The one selected so far.
    """
    family, gradient = MODELS.get(model).family, bool(differentiable(reward))
    names = fitting_methods(family, gradient)
    chosen = estimator if estimator in names else _counterpart(estimator, names)
    notes = ""
    if chosen and estimator in METHODS and estimator != chosen:
        why = " ".join(_why(METHODS.get(estimator), family, gradient))
        switch = f"Switched to {METHODS.get(chosen).title}. {METHODS.get(estimator).title}: {why}"
        notes = f'<p class="rsm-switch" role="status">{escape(switch)}</p>'
    ruled_out = [spec for spec in METHODS.specs() if spec.name not in names]
    if ruled_out:
        items = "".join(
            f"<li><b>{escape(spec.title)}</b> {escape(' '.join(_why(spec, family, gradient)))}</li>"
            for spec in ruled_out
        )
        notes += (
            f'<p class="rsm-outtitle">Not available with these choices</p><ul class="rsm-out">{items}</ul>'
        )
    choices = [choice for choice in options(METHODS) if choice[1] in names]
    return Fit(choices, chosen, notes)


def _counterpart(estimator: str | None, names: Sequence[str]) -> str | None:
    """Return the fitting method most like one that does not fit: same paper, order and branching."""
    if estimator not in METHODS:
        return next(iter(names), None)
    lost = METHODS.get(estimator)

    def likeness(name: str) -> int:
        return sum(
            getattr(METHODS.get(name), key) == getattr(lost, key) for key in ("origin", "order", "branching")
        )

    return max(names, key=likeness, default=None)


def _why(method, family: str, gradient: bool) -> list[str]:
    """Return the engine's reasons without the list of valid methods, which the page shows as choices."""
    reasons = [re.sub(r"\s*Methods that fit:.*$", "", text) for text in misfit(method, family, gradient)]
    return [re.sub(r"^'[^']*' ", "It ", text) for text in reasons]


def check(form: Form) -> tuple[RunConfig, str | None]:
    """Turn a form into settings and, for own prompts, their text.

    Raises:
        InputError: With one sentence per problem of the whole form.
    """
    found: list[str] = []
    values: dict[str, object] = fields.read_values(form.advanced)
    values["seed"] = 0 if form.seed is None else form.seed
    if form.budget != CUSTOM:
        values["budget_seconds"] = form.budget
    elif form.custom_seconds is None:
        found.append("Write the custom time budget in seconds, for example 240.")
    else:
        values["budget_seconds"] = form.custom_seconds
    text, name = None, form.prompt_set
    try:
        if form.prompt_source == BUILTIN:
            load_prompts(_builtin(form.prompt_set))
            values["prompts"] = name
        else:
            text = _own_prompts(form)
    except InputError as error:
        found += error.problems
    config = None
    try:
        if form.reward == CUSTOM and not form.reward_text:
            raise InputError("Write the custom mixture, for example shapes:1,tiny_clip:0.2.")
        config = build_config(form.model or "", form.estimator or "", form.reward_text, values)
    except InputError as error:
        found += error.problems
    if found or config is None:
        raise InputError(*found)
    return config, text


def _builtin(name: str | None) -> str:
    if name not in builtin_sets():
        raise InputError(f"Choose a built-in prompt set: {', '.join(builtin_sets())}.")
    return name


def _own_prompts(form: Form) -> str:
    if form.prompt_source == PASTE:
        lines = (form.pasted or "").splitlines()
        return "\n".join(check_prompts(lines, "The pasted text")) + "\n"
    if not form.upload:
        raise InputError("Upload a text file with one prompt a line, or choose a built-in set.")
    path = Path(form.upload)
    try:
        data = path.read_bytes()
        if len(data) > MAX_UPLOAD_BYTES:
            raise InputError(
                f"{path.name} is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB; use fewer prompts."
            )
        lines = data.decode("utf-8-sig").splitlines()
    except OSError:
        raise InputError(f"{path.name} did not arrive; upload it again.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8 text; save it as plain text.") from None
    return "\n".join(check_prompts(lines, path.name)) + "\n"


def command(settings: Mapping[str, object]) -> str:
    """Return the shell command that repeats a run, or an empty string when its settings are unreadable."""
    try:
        config = restored_config(settings)
    except InputError:
        return ""
    return command_for(config, "runs/again")


def restored_config(settings: Mapping[str, object]) -> RunConfig:
    """Return the settings of an earlier run, checked like a form's.

    Raises:
        InputError: They were written by another version or are damaged.
    """
    names = (str(settings.get(key, "")) for key in ("model", "estimator", "reward"))
    return build_config(*names, settings)


def settings_line(settings: Mapping[str, object]) -> str:
    """Say in one sentence what a run with these settings does."""
    model, reward = str(settings["model"]), str(settings["reward"])
    method, seconds = METHODS.get(str(settings["estimator"])).title, float(settings["budget_seconds"])
    title = REWARDS.get(reward).title if reward in REWARDS else reward
    return f"{MODELS.get(model).title} learns “{title}” with {method} in about {seconds:g} seconds."


def presets_for(model: str, estimator: str | None, reward: str) -> list[object]:
    """Return what the advanced inputs show for a combination; the mixture may be unfinished."""
    return fields.values_of(default_config(model, estimator or METHODS.names()[0], reward))
