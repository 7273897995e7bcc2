"""The design space itself: a row of the method table composed by a person, and which rows make sense.

``--estimator custom --set estimator.order=first --set estimator.weight=one`` builds a row that nobody named.
Torch-free, like the table, so that a combination is refused before anything loads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.methods import METHODS, Method
from trainers.registry import nearest

CUSTOM = "custom"
_TARGETS = "trainers.estimators."
_KERNEL_WEIGHTS = ("natural", "natural_scaled", "noise_aware", "schedule_mean", "interval")
_FORWARD_WEIGHTS = ("forward_one", "forward_noise", "forward_noise_squared", "forward_huber")
_FREE_REGRESSION = ("one", "clean_error", "contrast")
_NOISY_REGRESSION = ("natural", "inverse_variance", "score", "kl_natural")
_YES_OR_NO = ("no", "yes")
_CLIPS = ("clip", "fair_clip", "normalised_clip")

CHOICES: Mapping[str, tuple[str, ...]] = {
    "order": ("zeroth", "first"),
    "branching": ("trajectory", "tree", "per_step", "none"),
    "groups": ("prompt", "batch", "history"),
    "drops_silent": ("none", "branch", "path"),
    "steps": ("shared", "uniform", "stratified"),
    "last_step": _YES_OR_NO,
    "lookahead": ("terminal", "current", "next"),
    "lookahead_network": ("trained", "base"),
    "form": ("clean", "transition"),
    "weight": _KERNEL_WEIGHTS + _FORWARD_WEIGHTS + _FREE_REGRESSION + _NOISY_REGRESSION[1:],
    "strength": (
        "one",
        "clean_share",
        "clean_share_squared",
        "next_clean_share_squared",
        "inverse_kl",
        "discounted",
    ),
    "anchor": ("old", "ref"),
    "objective": ("ratio", "matching", "regression"),
    "normalised": _YES_OR_NO,
    "trust_region": (*_CLIPS, "old", "none"),
    "train_unconditional": _YES_OR_NO,
    "average": ("none", "rollout", "pull"),
    "kl": ("none", "rows", "anchors", "all"),
    "kl_scale": ("transition", "rate", "output"),
}


def method_of(config: RunConfig) -> Method:
    """Return the row that a config asks for: a named one, or the custom one composed.

    Raises:
        InputError: Unknown names or values, or parts that do not go together.
    """
    named = METHODS.get(config.estimator)
    return compose(config.row) if config.estimator == CUSTOM else named


def compose(parts: Iterable[str]) -> Method:
    """Build a row from ``name=value`` parts over the custom row's defaults.

    Raises:
        InputError: With one sentence per problem.
    """
    found: list[str] = []
    values: dict[str, object] = {}
    for part in parts:
        name, _, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if (name, value) == ("kl", "plain"):  # as runs of earlier versions have it
            values["kl_scale"], value = "output", "rows"
        if name not in CHOICES:
            found.append(f"Unknown part 'estimator.{name}'. {nearest(name, CHOICES)}")
        elif value not in CHOICES[name]:
            found.append(f"'estimator.{name}' cannot be '{value}'. {nearest(value, CHOICES[name])}")
        else:
            values[name] = value == "yes" if CHOICES[name] == _YES_OR_NO else value
    method = dataclasses.replace(METHODS.get(CUSTOM), **values)
    method = dataclasses.replace(method, target=_target(method))
    found += [] if found else row_problems(method)
    if found:
        raise InputError(*found)
    return method


def parts_of(method: Method) -> tuple[str, ...]:
    """Return the ``name=value`` parts that compose a row, as far as it is made of parts."""
    values = {name: getattr(method, name) for name in CHOICES}
    words = {True: "yes", False: "no"}
    return tuple(f"{name}={words.get(value, value)}" for name, value in values.items())


def _target(method: Method) -> str:
    if method.order == "first":
        return f"{_TARGETS}first_order:FirstOrder"
    if method.branching == "none":
        return f"{_TARGETS}forward_process:ForwardProcess"
    return f"{_TARGETS}zeroth_order:ZerothOrder"


def row_problems(method: Method) -> list[str]:
    """Say which settings of a row do not go together; empty for every row that works."""
    rules = _first_order_rules if method.order == "first" else _zeroth_order_rules
    rules = [*_objective_rules(method), *rules(method)]
    return [sentence for broken, sentence in rules if broken]


def setting_problems(method: Method, config: RunConfig) -> list[str]:
    """Say which settings of a run a row cannot work with."""
    found = []
    scaled = method.strength in ("inverse_kl", "discounted") and not method.normalised
    if scaled and config.kl_weight == 0:
        found.append(f"'{method.name}' divides its guidance by 'kl_weight', so that must be above 0.")
    if config.replay_size and method.lookahead != "next":
        found.append("'replay_size' needs a method that reads the reward's gradient at the next state.")
    if config.row and config.estimator != CUSTOM:
        found.append(f"'estimator.…' settings compose the custom row; '{config.estimator}' has its own.")
    return found


def _objective_rules(method: Method) -> list[tuple[bool, str]]:
    clipped = method.objective in ("ratio", "matching")
    return [
        (
            clipped and method.anchor != "old",
            "The ratio and matching objectives measure from the old policy: use anchor=old.",
        ),
        (
            clipped and method.trust_region == "old",
            "trust_region=old is a term of the regression; the ratio and matching objectives clip.",
        ),
        (
            not clipped and method.trust_region in _CLIPS,
            "A regression has nothing to clip: use trust_region=none or old.",
        ),
        (
            clipped and method.weight not in _KERNEL_WEIGHTS + _FORWARD_WEIGHTS,
            f"weight={method.weight} belongs to objective=regression.",
        ),
        (
            not clipped and method.weight not in _FREE_REGRESSION + _NOISY_REGRESSION,
            f"weight={method.weight} belongs to the ratio and matching objectives; a regression takes "
            f"{', '.join(_FREE_REGRESSION + _NOISY_REGRESSION)}.",
        ),
        (
            method.kl in ("all", "anchors") and method.branching != "per_step",
            f"kl={method.kl} holds the deterministic steps of branching=per_step; use kl=rows.",
        ),
    ]


def _first_order_rules(method: Method) -> list[tuple[bool, str]]:
    return [
        (method.objective != "regression", "order=first is a regression: use objective=regression."),
        (
            method.branching not in ("trajectory", "none"),
            "order=first follows single trajectories: use branching=trajectory or none.",
        ),
        (
            method.lookahead == "next" and method.branching != "trajectory",
            "lookahead=next reads the noisy next state: use branching=trajectory.",
        ),
        (
            method.branching == "none" and method.weight in _NOISY_REGRESSION,
            f"weight={method.weight} reads the step's noise: use branching=trajectory.",
        ),
        (method.normalised, "normalised=yes belongs to the forward process (order=zeroth, branching=none)."),
    ]


def _zeroth_order_rules(method: Method) -> list[tuple[bool, str]]:
    forward = method.branching == "none"
    return [
        (
            forward and method.weight in _KERNEL_WEIGHTS + _NOISY_REGRESSION,
            f"weight={method.weight} reads the step's noise, which the forward process does not have.",
        ),
        (
            not forward and method.weight in _FORWARD_WEIGHTS,
            f"weight={method.weight} belongs to the forward process: use branching=none.",
        ),
        (
            method.normalised and not forward,
            "normalised=yes belongs to the forward process (order=zeroth, branching=none).",
        ),
        (
            forward and method.trust_region in ("fair_clip", "normalised_clip"),
            f"trust_region={method.trust_region} reads the step's noise: use clip.",
        ),
    ]
