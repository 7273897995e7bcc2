"""What can be asked of the laboratory's pictures, and the sentences for what cannot. Torch-free.

Everything is bounded here, because a page computes what it is asked at once: sample counts and depths are
lists, noise levels are ranges, and a noise level stands for the nearest step of a fixed schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trainers.coercion import from_mapping
from trainers.custom import CUSTOM
from trainers.errors import InputError
from trainers.methods import METHODS
from trainers.presets import NO_BRANCHES
from trainers.registry import nearest

STEPS = 25
SAMPLES = (4, 16, 64, 256, 1024)
LOOKAHEADS = (1, 2, 4, 8, STEPS)
BETAS = (0.5, 1.0, 2.0, 5.0)
NOISE_RANGE, INJECTED_RANGE = (0.05, 0.98), (0.1, 1.5)
# With this noise, and many steps, a rollout is the exact reverse of the noising (√2 for flows).
EXACT_INJECTED = {"flow": 1.4, "diffusion": 1.0}
MAX_SEED = 2**31 - 1
THIRDS = tuple(round(part * STEPS / 3) for part in range(4))  # where the thirds of the schedule begin

FAMILIES = {"flow": "Flow (predicts a velocity)", "diffusion": "Diffusion (predicts the noise)"}
ORDERS = {"zeroth": "Reward values only (zeroth order)", "first": "The reward's gradient (first order)"}
ADVANTAGES = {
    "mean": "Minus the mean: r − mean",
    "raw": "As it is: r",
    "group": "Normalised: (r − mean) / spread",
    "tilted": "Exponential: softmax(r/β)",
}
ROLLOUTS = {
    "sde": "Noisy to the end (SDE)",
    "localised": "One noisy step, then none (ODE)",
}
BRANCHINGS = {
    "noisy": "The noisy third",
    "spread": "Every fifth step",
    "every": "Every step",
    "clean": "The clean third",
    CUSTOM: "Written below",
}
_BRANCHES = 8


@dataclass(frozen=True)
class Choice:
    """One estimator of the value guidance, and where it is looked at.

    Attributes:
        family: A key of ``FAMILIES``.
        order: A key of ``ORDERS``: what the estimator reads.
        advantage: A key of ``ADVANTAGES`` (zeroth order).
        rollout: A key of ``ROLLOUTS`` (zeroth order).
        samples: N, one of ``SAMPLES`` (zeroth order).
        lookahead: Network evaluations up to the clean estimate, one of ``LOOKAHEADS`` (first order).
        noise: Noise level of the states, within ``NOISE_RANGE``.
        injected: Noise of the stochastic steps: a of the flow SDE, η of DDIM, within ``INJECTED_RANGE``.
        beta: β of the tilted law, one of ``BETAS``.
        seed: Seed of every draw.
    """

    family: str = "flow"
    order: str = "zeroth"
    advantage: str = "mean"
    rollout: str = "sde"
    samples: int = 64
    lookahead: int = 1
    noise: float = 0.6
    injected: float = EXACT_INJECTED["flow"]
    beta: float = 1.0
    seed: int = 0

    @property
    def localised(self) -> bool:
        """Whether only the first step of a rollout is noisy."""
        return self.rollout == "localised"


_TABLES = {
    "family": ("Model family", FAMILIES),
    "order": ("What the estimator reads", ORDERS),
    "advantage": ("Advantage", ADVANTAGES),
    "rollout": ("Rollout", ROLLOUTS),
}
_LISTS = {"samples": ("Samples", SAMPLES), "lookahead": ("Lookahead", LOOKAHEADS), "beta": ("β", BETAS)}
_RANGES = {
    "noise": ("Noise level of the states", NOISE_RANGE),
    "injected": ("Noise injected per step", INJECTED_RANGE),
}


def read_choice(values: Mapping[str, object]) -> Choice:
    """Check what a person chose.

    Args:
        values: Fields of ``Choice`` as they came; missing ones keep their defaults.

    Raises:
        InputError: With one sentence per problem, all together.
    """
    found: list[str] = []
    clean: dict[str, object] = {}
    for name, value in values.items():
        try:
            clean[name] = _read(name, value)
        except InputError as error:
            found += error.problems
    if found:
        raise InputError(*found)
    return replace(Choice(), **clean)


def _read(name: str, value: object) -> object:
    if name in _TABLES:
        title, table = _TABLES[name]
        if not isinstance(value, str) or value not in table:
            raise InputError(f"{title} cannot be '{value}'. {nearest(str(value), table)}")
        return value
    if name in _LISTS:
        title, listed = _LISTS[name]
        number = _number(title, value)
        if number not in listed:
            raise InputError(f"{title} must be one of {', '.join(f'{n:g}' for n in listed)}, not {number:g}.")
        return type(listed[0])(number)
    if name in _RANGES:
        title, (low, high) = _RANGES[name]
        return _within(title, _number(title, value), low, high)
    seed = _number("The seed", value)
    if seed != int(seed):
        raise InputError(f"The seed must be a whole number, not {seed:g}.")
    return int(_within("The seed", seed, 0, MAX_SEED))


def _number(title: str, value: object) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        given = "nothing" if value in (None, "") else f"'{value}'"
        raise InputError(f"{title} must be a number, not {given}.")
    return number


def _within(title: str, number: float, low: float, high: float) -> float:
    if not low <= number <= high:
        raise InputError(f"{title} must be between {low:.12g} and {high:.12g}, not {number:.12g}.")
    return number


def methods_of(family: str) -> tuple[str, ...]:
    """Return the named rows of the method table that a family can train."""
    return tuple(m.name for m in METHODS if family in m.families and m.name != CUSTOM)


def branches_of(branching: str, text: str = "") -> tuple[int, ...]:
    """Return the branches K of each of the steps that inject noise.

    Args:
        branching: A key of ``BRANCHINGS``.
        text: K per step, separated by commas, noisiest step first, for the written branching.

    Raises:
        InputError: The branching is unknown, or the text is no list of branches that fits.
    """
    noisy = STEPS - 1  # the last step lands on the clean picture, without noise
    if branching == CUSTOM:
        branches = from_mapping({"branches": text, "rollout_steps": 200}).branches
        if not any(branches):
            raise InputError(NO_BRANCHES)
        if len(branches) > noisy:
            raise InputError(
                f"Only {noisy} of the {STEPS} steps inject noise, but {len(branches)} are listed."
            )
        return branches + (0,) * (noisy - len(branches))
    chosen = {
        "noisy": range(THIRDS[1]),
        "spread": range(0, noisy, 5),
        "every": range(noisy),
        "clean": range(THIRDS[2], noisy),
    }.get(str(branching))
    if chosen is None:
        raise InputError(f"Branching cannot be '{branching}'. {nearest(str(branching), BRANCHINGS)}")
    return tuple(_BRANCHES * (step in chosen) for step in range(noisy))


def check_methods(family: str, names: object) -> tuple[str, ...]:
    """Return the chosen rows, in the order of the table.

    Raises:
        InputError: None is chosen, or one is unknown or does not fit the family.
    """
    chosen = list(names) if isinstance(names, list | tuple) else []
    fitting = methods_of(family)
    found = [
        f"'{n}' does not train a {family} model. {nearest(str(n), fitting)}"
        for n in chosen
        if n not in fitting
    ]
    if not chosen:
        found.append("Choose at least one method.")
    if found:
        raise InputError(*found)
    return tuple(name for name in fitting if name in chosen)
