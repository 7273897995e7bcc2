"""The method table: every named method is one row of settings of the reward-score-matching loss.

    L = W1 · ‖ o_θ − (o_anchor + γ·G) ‖² + W2 · ‖ o_θ − o_old ‖²          (per-element means)

A row says where the guidance G comes from (``estimator``), how rollouts are made (``branching``), how
steps are weighed (``weight``, ``strength``), what holds the policy back (``trust_region``, ``kl``) and
what the usual settings are. Two methods differ by a row, or by a row and one estimator file. The module
is torch-free so that the page and the command line can list and check methods at no cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from trainers.errors import InputError
from trainers.registry import Registry, Spec

FLOW, DIFFUSION = "flow", "diffusion"


@dataclass(frozen=True)
class Method(Spec):
    """One row of the table; ``target`` names the estimator class.

    Attributes:
        families: Model families the row is defined for: ``flow``, ``diffusion``.
        order: ``zeroth`` (reads reward values) or ``first`` (reads reward gradients).
        branching: ``trajectory`` (whole stochastic rollouts), ``per_step`` (one stochastic step with K
            branches, deterministic otherwise) or ``none`` (deterministic rollouts).
        weight: Name of W1 in ``trainers.core.weights``.
        strength: Name of γ in ``trainers.core.weights`` (first order).
        anchor: ``old`` or ``ref``: the policy that the target is measured from.
        objective: ``ratio`` (PPO's clipped exp-ratio), ``matching`` (clipped matching loss) or
            ``regression`` (the squared loss itself).
        trust_region: ``clip``, ``fair_clip``, ``old`` (W2) or ``none``.
        kl: ``none``, ``rows`` (trained rows) or ``all`` (deterministic steps of the rollout too).
        origin: The paper the row comes from.
        defaults: Settings of ``RunConfig`` that the row changes.
    """

    families: tuple[str, ...] = (FLOW, DIFFUSION)
    order: str = "zeroth"
    branching: str = "trajectory"
    weight: str = "natural"
    strength: str = "one"
    anchor: str = "old"
    objective: str = "matching"
    trust_region: str = "clip"
    kl: str = "rows"
    origin: str = ""
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


_ZEROTH = "trainers.estimators.zeroth_order:ZerothOrder"
_FIRST = "trainers.estimators.first_order:TerminalGradient"
_RSM = "Lee et al., Reward Score Matching, arXiv 2604.17415"

METHODS: Registry[Method] = Registry(
    "estimator",
    [
        Method(
            name="rsm_zeroth_order_flow",
            title="RSM zeroth order (flow)",
            summary="Branches one noisy step at the high-noise end and compares the finished pictures; "
            "works with any reward.",
            target=_ZEROTH,
            families=(FLOW,),
            branching="per_step",
            weight="natural_scaled",
            trust_region="fair_clip",
            kl="all",
            origin=_RSM,
        ),
        Method(
            name="rsm_first_order_flow",
            title="RSM first order (flow)",
            summary="Reads one reward gradient at each finished picture; needs a differentiable reward.",
            target=_FIRST,
            families=(FLOW,),
            order="first",
            branching="none",
            weight="one",
            strength="clean_share",
            anchor="ref",
            objective="regression",
            trust_region="none",
            kl="none",
            origin=_RSM,
        ),
        Method(
            name="grpo",
            title="GRPO",
            summary="Whole noisy trajectories, group-normalised rewards and PPO's clipped ratio; "
            "works with any reward.",
            target=_ZEROTH,
            objective="ratio",
            origin="Liu et al., Flow-GRPO, arXiv 2505.05470; Xue et al., DanceGRPO, arXiv 2505.07818",
        ),
        Method(
            name="rsm_zeroth_order_diffusion",
            title="RSM zeroth order (diffusion)",
            summary="Branches at a few evenly spaced steps with one constant weight; works with any reward.",
            target=_ZEROTH,
            families=(DIFFUSION,),
            branching="per_step",
            weight="schedule_mean",
            kl="all",
            origin=_RSM,
        ),
        Method(
            name="rsm_first_order_diffusion",
            title="RSM first order (diffusion)",
            summary="One reward gradient per finished picture, matched along its own noisy trajectory; "
            "needs a differentiable reward.",
            target=_FIRST,
            families=(DIFFUSION,),
            order="first",
            branching="trajectory",
            weight="inverse_variance",
            strength="one",
            anchor="ref",
            objective="regression",
            trust_region="old",
            kl="none",
            origin=_RSM,
        ),
    ],
)


def fitting_methods(family: str, differentiable: bool) -> tuple[str, ...]:
    """Return the names of the methods that fit a model family and a kind of reward."""
    return tuple(
        method.name
        for method in METHODS.specs()
        if family in method.families and (differentiable or method.order == "zeroth")
    )


def misfit(method: Method, family: str, differentiable: bool) -> list[str]:
    """Say why a method does not fit a model family or a reward, naming the valid choices.

    Args:
        method: A row of the table.
        family: ``flow`` or ``diffusion``.
        differentiable: Whether the reward passes gradients to the picture.

    Returns:
        One sentence per reason; empty when the method fits.
    """
    valid = ", ".join(fitting_methods(family, differentiable)) or "none"
    found = []
    if family not in method.families:
        found.append(
            f"'{method.name}' is defined for {' and '.join(method.families)} models, but this base model is "
            f"a {family} model. Methods that fit: {valid}."
        )
    if method.order == "first" and not differentiable:
        found.append(
            f"'{method.name}' reads reward gradients, but this reward is a black box. Methods that fit: "
            f"{valid}."
        )
    return found


def check_fit(method: Method, family: str, differentiable: bool) -> None:
    """Raise ``InputError`` with the sentences of ``misfit`` when there are any."""
    found = misfit(method, family, differentiable)
    if found:
        raise InputError(*found)
