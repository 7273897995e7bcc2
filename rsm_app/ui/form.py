"""The form of the train page as data: options, what fits what, and checking before a worker starts."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rsm_app.jobs.ceilings import prompt_count_problems
from rsm_app.jobs.fitting import device_problem, trainable
from rsm_app.jobs.limits import Limits
from rsm_app.ui import field_problems, fields
from rsm_app.ui.field_problems import FormError
from trainers.cli import command_for
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.methods import METHODS, fitting_methods, misfit
from trainers.models import MODELS
from trainers.preflight import prompt_problems
from trainers.presets import build_config, default_config
from trainers.prompt_files import ENDINGS, PARQUET, PromptRow, as_text, read_bytes
from trainers.prompts import builtin_sets, checked, load_prompts, read_prompts
from trainers.rewards import REWARDS, RewardSpec, parse_mixture
from trainers.rewards.weights import size_words

CUSTOM = "custom"
BUILTIN, PASTE, FILE = "Built-in set", "Paste", "Upload a file"
PROMPT_SOURCES = (BUILTIN, PASTE, FILE)
MAX_UPLOAD_BYTES = 1_000_000
UPLOADS = tuple(ending for ending in ENDINGS if ending != PARQUET)  # a small one may unfold into gigabytes
_NO_LIMITS = Limits()
USUAL_CUSTOM_SECONDS = 240  # what the field of a custom time budget begins with
# What the list of estimators shows at once: first choices for each kind of reward, and the field's baseline.
FIRST_CHOICES = (
    "rsm_zeroth_order_flow",
    "rsm_first_order_flow",
    "rsm_zeroth_order_diffusion",
    "rsm_first_order_diffusion",
    "grpo",
)


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


def options(specs) -> list[tuple[str, str]]:
    """Return a table's rows as radio choices; the label's first line is the title."""
    return [(f"{spec.title}\n{spec.summary}", spec.name) for spec in specs]


def models_ruled_out() -> str:
    """List the base models that this machine cannot train, folded, each with its reason."""
    out = [(spec, problem) for spec in MODELS if (problem := device_problem(spec))]
    if not out:
        return ""
    items = "".join(f"<li><b>{escape(spec.title)}</b> {escape(problem)}</li>" for spec, problem in out)
    return (
        f'<details class="rsm-more"><summary>{len(out)} more base models do not fit this machine: see why'
        f'</summary><ul class="rsm-out">{items}</ul></details>'
    )


def reward_options() -> list[tuple[str, str]]:
    """Return the rewards that can run here, each with its kind, and the custom mixture."""
    kinds = {True: "Differentiable.", False: "Black box."}
    offered = [spec for spec in REWARDS.specs() if not unavailable(spec.name)]
    rows = [(f"{s.title}\n{s.summary} {kinds[s.differentiable]}{_download(s)}", s.name) for s in offered]
    return [*rows, ("Custom mixture\nSeveral rewards with weights, written as text.", CUSTOM)]


def _download(spec: RewardSpec) -> str:
    missing = sum(part.megabytes for part in spec.weights if part.here() is None)
    return f" Downloads {size_words(missing)} first." if missing else ""


def unavailable(reward: str) -> list[str]:
    """Return why a reward of the table cannot run here: weights that cannot be had, an endpoint nobody named.

    Whether an endpoint answers is only asked when a run is to start, because it may be started after the app.
    """
    spec = REWARDS.get(reward)
    return spec.obstacles(RunConfig(), ask=bool(spec.weights))


def rewards_ruled_out() -> str:
    """List the rewards that cannot run here and why, folded; empty when all can."""
    told = [(spec, unavailable(spec.name)) for spec in REWARDS.specs()]
    items = "".join(
        f"<li><b>{escape(spec.title)}</b> {escape(' '.join(why))}</li>" for spec, why in told if why
    )
    count = sum(1 for _, why in told if why)
    if not count:
        return ""
    some = "One more reward cannot" if count == 1 else f"{count} more rewards cannot"
    return (
        f'<details class="rsm-more"><summary>{some} run here: see why</summary>'
        f'<ul class="rsm-out">{items}</ul></details>'
    )


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
        choices: Estimators that can be selected, as radio choices, first choices first.
        estimator: The selected one: as asked for if it fits, else the first that does.
        notes: HTML that names the estimators that do not fit and why, and a switch if there was one.
        hidden: How many more fit that are not among the choices.
    """

    choices: list[tuple[str, str]]
    estimator: str | None
    notes: str
    hidden: int


def fit(model: str, reward: str, estimator: str | None, every: bool = False) -> Fit:
    """Decide which estimators fit a model and a reward.

    Args:
        model: A name of the model table.
        reward: A reward or mixture; one that cannot be read yet counts as a black box.
        estimator: The one selected so far.
        every: Whether all that fit are listed, not only the first choices and the selected one.
    """
    family, gradient = MODELS.get(model).family, bool(differentiable(reward))
    names = _first_choices_first(fitting_methods(family, gradient))
    chosen = estimator if estimator in names else _counterpart(estimator, names)
    notes = ""
    if chosen and estimator in METHODS and estimator != chosen:
        why = " ".join(_why(METHODS.get(estimator), family, gradient))
        switch = f"Switched to {METHODS.get(chosen).title}. {METHODS.get(estimator).title}: {why}"
        notes = f'<p class="rsm-switch" role="status">{escape(switch)}</p>'
    listed = [name for name in names if every or name in FIRST_CHOICES or name == chosen]
    choices = [(f"{METHODS.get(name).title}\n{METHODS.get(name).summary}", name) for name in listed]
    notes += _binding(chosen) + _ruled_out(names, family, gradient)
    return Fit(choices, chosen, notes, len(names) - len(listed))


def hidden_line(hidden: int) -> str:
    """Say how many estimators are not listed."""
    return f"{hidden} more fit these choices." if hidden else "All that fit are listed."


def _first_choices_first(names: Sequence[str]) -> list[str]:
    order = {name: place for place, name in enumerate(FIRST_CHOICES)}
    return sorted(names, key=lambda name: order.get(name, len(order)))


def _binding(estimator: str | None) -> str:
    """Say which models and rewards the selected estimator leaves out."""
    method = METHODS.get(estimator) if estimator else None
    if method is None:
        return ""
    told = [spec.title for spec in trainable() if spec.family not in method.families]
    if method.order == "first":
        told.append("rewards marked “Black box”, which have no gradient to read")
    if not told:
        return ""
    text = f"{method.title} does not fit {' or '.join(told)}: choosing one switches to another estimator."
    return f'<p class="rsm-facts">{escape(text)}</p>'


def _ruled_out(names: Sequence[str], family: str, gradient: bool) -> str:
    """List what cannot be selected and why: the family's first choices openly, the rest folded."""
    ruled_out = [spec for spec in METHODS.specs() if spec.name not in names]
    near = [spec for spec in ruled_out if spec.name in FIRST_CHOICES and family in spec.families]
    far = [spec for spec in ruled_out if spec not in near]

    def items(specs) -> str:
        told = (
            f"<li><b>{escape(spec.title)}</b> {escape(' '.join(_why(spec, family, gradient)))}</li>"
            for spec in specs
        )
        return f'<ul class="rsm-out">{"".join(told)}</ul>'

    notes = ""
    if near:
        notes += f'<p class="rsm-outtitle">Not available with these choices</p>{items(near)}'
    if far:
        more = "more " if near else ""
        notes += (
            f'<details class="rsm-more"><summary>{len(far)} {more}estimators do not fit these choices: '
            f"see why</summary>{items(far)}</details>"
        )
    return notes


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


_TEXTS = ("model", "reward", "mixture", "estimator", "prompt_source", "prompt_set", "pasted", "upload")


def _no_text(value: object) -> bool:
    """Whether something is no text, as no browser but any program may send."""
    return value is not None and not isinstance(value, str)


def check(form: Form, limits: Limits = _NO_LIMITS) -> tuple[RunConfig, str | None]:
    """Turn a form into settings and, for own prompts, their text.

    Args:
        form: What was sent.
        limits: How many prompts one may bring; how large everything else may be, the queue says.

    Raises:
        FormError: With one sentence per problem of the whole form, each with its place.
    """
    if problems := [f"'{name}' must be text." for name in _TEXTS if _no_text(getattr(form, name))]:
        raise FormError(dict.fromkeys(problems, ""))
    if problems := prompt_count_problems(prompt_count(form), limits):
        raise FormError(dict.fromkeys(problems, field_problems.PROMPTS))
    found: dict[str, str] = {}
    values: dict[str, object] = fields.read_values(form.advanced)
    values["seed"] = 0 if form.seed is None else form.seed
    if form.budget != CUSTOM:
        values["budget_seconds"] = form.budget
    elif form.custom_seconds is None:
        found["Write the custom time budget in seconds, for example 240."] = field_problems.BUDGET
    else:
        values["budget_seconds"] = form.custom_seconds
    own, name = None, form.prompt_set
    try:
        if form.prompt_source == BUILTIN:
            load_prompts(_builtin(form.prompt_set))
            values["prompts"] = name
        else:
            own = _own_prompts(form)
    except InputError as error:
        found |= dict.fromkeys(error.problems, field_problems.PROMPTS)
    config = None
    try:
        if form.model not in MODELS:  # never a folder of this machine
            raise InputError(MODELS.unknown(form.model or ""))
        found |= _mixture_problems(form)
        if form.reward == CUSTOM and not form.reward_text:
            raise FormError(found)
        names = (form.model or "", form.estimator or "", form.reward_text)
        config = build_config(*names, values, every_field=True)
    except InputError as error:
        placed = {text: field_problems.place_of(text) for text in error.problems}
        found |= {text: place for text, place in placed.items() if text not in found}
    if config is not None and field_problems.PROMPTS not in found.values():
        for field, sentences in prompt_problems(config, own).items():
            found |= dict.fromkeys(sentences, field_problems.place_of_field(field))
    if found or config is None:
        raise FormError(found)
    return config, as_text(own) if own else None


def _mixture_problems(form: Form) -> dict[str, str]:
    if form.reward != CUSTOM:
        return {}
    if not form.reward_text:
        text = "Write the custom mixture, for example shapes:1,tiny_clip:0.2."
        return {text: field_problems.MIXTURE}
    try:
        parse_mixture(form.reward_text)
    except InputError as error:
        return dict.fromkeys(error.problems, field_problems.MIXTURE)
    return {}


def _builtin(name: str | None) -> str:
    if name not in builtin_sets():
        raise InputError(f"Choose a built-in prompt set: {', '.join(builtin_sets())}.")
    return name


def prompt_count(form: Form) -> int:
    """Return how many lines of own prompts a form has, without looking at any."""
    if form.prompt_source == PASTE:
        return len((form.pasted or "").splitlines())
    if form.prompt_source == FILE and form.upload:
        with contextlib.suppress(OSError, InputError):  # ``_own_prompts`` says it, with what else is wrong
            return _uploaded(Path(form.upload)).count(b"\n")
    return 0


def _own_prompts(form: Form) -> list[PromptRow]:
    if form.prompt_source == PASTE:
        return read_prompts(form.pasted or "", "The pasted text")
    if not form.upload:
        raise InputError("Upload a file of prompts, or choose a built-in set.")
    path = Path(form.upload)
    try:
        data = _uploaded(path)
    except OSError:
        raise InputError(f"{path.name} did not arrive; upload it again.") from None
    return checked(read_bytes(data, path.name), path.name)


def _uploaded(path: Path) -> bytes:
    """Read an uploaded file, unless it is too large to be looked at."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_UPLOAD_BYTES:
            raise InputError(
                f"{path.name} is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB; use fewer prompts."
            )
        return file.read(MAX_UPLOAD_BYTES)


def command(settings: Mapping[str, object]) -> str:
    """Return the shell command that repeats a run, or an empty string when its settings are unreadable."""
    try:
        config = _stored_config(settings)
    except InputError:
        return ""
    return command_for(config, "runs/again")


def restored_config(settings: Mapping[str, object]) -> RunConfig:
    """Return the settings of an earlier run, checked like a form's.

    Raises:
        InputError: They were written by another version, are damaged, or name a base model that only a shell
            may name.
    """
    if str(settings.get("model")) not in MODELS:
        raise InputError("The base model of this run was named in a shell; repeat the run there.")
    return _stored_config(settings)


def _stored_config(settings: Mapping[str, object]) -> RunConfig:
    names = (str(settings.get(key, "")) for key in ("model", "estimator", "reward"))
    return build_config(*names, settings)


def settings_line(settings: Mapping[str, object]) -> str:
    """Say in one sentence what a run with these settings does."""
    model, reward = str(settings["model"]), str(settings["reward"])
    method, seconds = METHODS.get(str(settings["estimator"])).title, float(settings["budget_seconds"])
    title = REWARDS.get(reward).title if reward in REWARDS else reward
    name = MODELS.get(model).title if model in MODELS else model
    return f"{name} learns “{title}” with {method} in about {seconds:g} seconds."
