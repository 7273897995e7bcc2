"""The method table: every named method is one row of settings of the reward-score-matching loss.

    L = W1 · ‖ o_θ − (o_anchor + γ·G) ‖² + W2 · ‖ o_θ − o_old ‖²          (per-element means)

A row says where the guidance G comes from (``estimator``), how rollouts are made (``branching``), how
steps are weighed (``weight``, ``strength``), what holds the policy back (``trust_region``, ``kl``) and
what the usual settings are, as published (docs/DEFAULTS.md). The rows themselves are in ``rows_zeroth``,
``rows_first`` and ``rows_forward``. Two methods differ by a row, or by a row and one estimator file. The
module is torch-free so that the page and the command line can list and check methods at no cost.
"""

from __future__ import annotations

from trainers.errors import InputError
from trainers.method import Method
from trainers.registry import Registry
from trainers.rows_first import FIRST_ORDER
from trainers.rows_forward import FORWARD_PROCESS
from trainers.rows_zeroth import ZEROTH_ORDER

_ORDER = (
    "rsm_zeroth_order_flow",
    "rsm_first_order_flow",
    "grpo",
    "rsm_zeroth_order_diffusion",
    "rsm_first_order_diffusion",
    "tempflow_grpo",
    "branch_grpo",
    "grpo_guard",
    "pcpo",
    "pcpo_flow",
    "ppo",
    "reinforce_kl",
    "vgg_flow",
    "residual_nabla_db",
    "sqdf",
    "awm",
    "diffusion_nft",
    "ram",
    "custom",
)
_ROWS = {row.name: row for row in (*ZEROTH_ORDER, *FIRST_ORDER, *FORWARD_PROCESS)}

METHODS: Registry[Method] = Registry("estimator", [_ROWS[name] for name in _ORDER])


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
