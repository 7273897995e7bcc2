"""What a row of the method table says. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from trainers.registry import Spec

FLOW, DIFFUSION = "flow", "diffusion"


@dataclass(frozen=True)
class Method(Spec):
    """One row of the table; ``target`` names the estimator class.

    Attributes:
        families: Model families the row can be used with: ``flow``, ``diffusion``.
        home: The families its paper defines it for; it is an extension of ours elsewhere.
        order: ``zeroth`` (reads reward values) or ``first`` (reads reward gradients).
        branching: ``trajectory`` (whole stochastic rollouts), ``tree`` (stochastic rollouts that split),
            ``per_step`` (one stochastic step with K branches, deterministic otherwise) or ``none``
            (deterministic rollouts; with order ``zeroth``, the forward process).
        groups: ``prompt`` or ``batch``: whose rewards are compared when branches do not form a group.
        lookahead: ``terminal``, ``current`` or ``next``: where the reward's gradient is read.
        form: ``clean`` (G = −∇r) or ``transition`` (G = (σ²/k)∇r): what a gradient means for the output.
        weight: Name of W1 in ``trainers.core.weights``.
        strength: Name of γ in ``trainers.core.weights`` (regression).
        anchor: ``old`` or ``ref``: the policy that the target is measured from.
        objective: ``ratio`` (PPO's clipped exp-ratio), ``matching`` (clipped matching loss) or
            ``regression`` (the squared loss itself).
        normalised: Whether rows are divided by their mean absolute x0 error (DiffusionNFT).
        trust_region: ``clip``, ``fair_clip``, ``normalised_clip``, ``old`` (W2) or ``none``.
        kl: ``none``, ``rows`` (trained rows), ``all`` (deterministic steps of the rollout too) or ``plain``
            (‖o_θ − o_ref‖² without λ, where there is no transition kernel).
        origin: The paper the row comes from.
        idea: What the method does and when to use it, in a few sentences.
        defaults: Settings of ``RunConfig`` that the row changes.
    """

    families: tuple[str, ...] = (FLOW, DIFFUSION)
    home: tuple[str, ...] = (FLOW, DIFFUSION)
    order: str = "zeroth"
    branching: str = "trajectory"
    groups: str = "prompt"
    lookahead: str = "terminal"
    form: str = "clean"
    weight: str = "natural"
    strength: str = "one"
    anchor: str = "old"
    objective: str = "matching"
    normalised: bool = False
    trust_region: str = "clip"
    kl: str = "rows"
    origin: str = ""
    idea: str = ""
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
