"""Why a row misses the tilted law: each suspected cause is taken away, and the row is trained again.

An explanation stands in docs/METHODS.md only with the distance that is left without its cause. Torch-free:
the trainings themselves are those of ``trainers.lab.study``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from trainers.custom import CUSTOM, parts_of
from trainers.method import DIFFUSION, Method
from trainers.methods import METHODS

EVERY_STEP = "learns from some of the steps only"
PATH_WEIGHTS = {"natural", "kl_natural", "forward_one", "one"}


@dataclass(frozen=True)
class Cause:
    """A suspected cause, and the row without it.

    Attributes:
        text: What the row does, as part of a sentence.
        parts: Fields of the row that take it away.
        settings: Settings of the run that do.
    """

    text: str
    parts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def causes(method: Method) -> list[Cause]:
    """Return what in a row's own definition may keep it from the tilted law."""
    return [*(_first_order(method) if method.order == "first" else _zeroth_order(method))]


def _first_order(method: Method) -> list[Cause]:
    found = []
    if method.strength in _FADES:
        found.append(Cause(f"fades its guidance by {_FADES[method.strength]}", {"strength": "one"}))
    if method.lookahead == "current":
        found.append(Cause("reads ∇r without the network's Jacobian", {"lookahead": "next", **_TRANSITION}))
    if method.lookahead == "terminal" and method.form == "transition":
        found.append(Cause("reads ∇r at the finished picture only", {"lookahead": "next"}))
    if method.lookahead_network == "base":
        found.append(Cause("reads the value of the base model", {"lookahead_network": "trained"}))
    elif method.lookahead == "next":
        found.append(Cause("reads the value of the trained policy", {"lookahead_network": "base"}))
    if method.weight in ("score", "inverse_variance"):
        found.append(Cause("weighs steps unlike the path's KL", {"weight": "natural"}))
    if method.steps != "shared":
        found.append(Cause("draws the steps of each trajectory", {"steps": "shared"}))
    return found


_FADES = {
    "clean_share": "1 − t",
    "clean_share_squared": "(1 − t)²",
    "next_clean_share_squared": "ᾱ'",
    "discounted": "its discount",
}
_TRANSITION = {"branching": "trajectory", "form": "transition", "weight": "natural"}


def _zeroth_order(method: Method) -> list[Cause]:
    found = []
    if method.branching == "per_step":
        found.append(Cause(EVERY_STEP, settings={"branches": "every"}))
    if method.weight not in PATH_WEIGHTS and method.objective != "regression":
        natural = "natural" if method.branching != "none" else "forward_one"
        found.append(Cause("weighs steps unlike the path's KL", {"weight": natural}))
    if method.kl == "anchors":
        found.append(Cause("is held on deterministic steps only", {"kl": "rows"}))
    if method.normalised:
        found.append(Cause("divides its rows by their error", {"normalised": False, "weight": "one"}))
        found.append(Cause("bounds its advantage", settings={"advantage": "mean", "advantage_clamp": 1000.0}))
    if method.branching == "none":
        found.append(Cause("uses the denoising error in place of the likelihood", _likelihood(method)))
    return found


def _likelihood(method: Method) -> dict[str, Any]:
    """Return the parts by which a forward-process row reads the log-ratio of whole trajectories instead."""
    clipped = method.objective == "ratio"
    weight = "natural" if clipped else "kl_natural" if method.anchor == "ref" else "natural"
    return {"branching": "trajectory", "weight": weight, "normalised": False, "average": "none"}


def without(method: Method, cause: Cause, family: str, steps: int) -> dict[str, Any]:
    """Return the settings of a custom row that is ``method`` without a cause.

    Args:
        method: The row.
        cause: What is taken away.
        family: ``flow`` or ``diffusion``.
        steps: Sampling steps.
    """
    row = replace(method, **cause.parts)
    settings: dict[str, Any] = {"row": parts_of(row)}
    if cause.settings.get("branches") == "every":
        last = steps - 1 if family == DIFFUSION else steps
        settings["branches"] = (2,) * (last - 1)
    return settings | {name: value for name, value in cause.settings.items() if name != "branches"}


def jobs(family: str, steps: int, names: Sequence[str] = ()) -> list[tuple[str, Cause, dict[str, Any]]]:
    """Return (method, cause, settings) of every row of a family that has suspected causes."""
    fitting = (m for m in METHODS if family in m.families and m.name != CUSTOM)
    rows = [method for method in fitting if not names or method.name in names]
    return [(row.name, cause, without(row, cause, family, steps)) for row in rows for cause in causes(row)]
