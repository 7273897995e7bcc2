"""What a row of the method table says. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from trainers.registry import Spec

FLOW, DIFFUSION = "flow", "diffusion"


def frozen(**values: Any) -> Mapping[str, Any]:
    """Return settings that nobody can change."""
    return MappingProxyType(values)


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
        groups: ``prompt``, ``batch``, or ``history`` (the latest rewards of the prompt): whose rewards are
            compared when branches do not form a group.
        std_epsilon: What is added to a group's standard deviation.
        unbiased_std: Whether that divides by one less than the group's size.
        drops_silent: Which branches leave the mean over rows: ``none``, each ``branch`` whose advantage is
            exactly 0 (all those of a group without a difference), or the branches of a ``path`` (those of one
            number that left one root) when none of them has an advantage; a path is then also trained in one
            update (TempFlow).
        last_step: Whether the last step of a stochastic trajectory is trained, if it injects noise.
        steps: Which steps of a trajectory are trained: ``shared`` (one random choice for all), ``uniform``
            (one for each trajectory) or ``stratified`` (for each the last, and one of every stratum).
        lookahead: ``terminal``, ``current`` or ``next``: where the reward's gradient is read.
        lookahead_network: ``trained`` or ``base``: which network reads the clean estimate of the next state.
        form: ``clean`` (G = −∇r) or ``transition`` (G = (σ²/k)∇r): what a gradient means for the output.
        weight: Name of W1 in ``trainers.core.weights``.
        strength: Name of γ in ``trainers.core.weights`` (regression).
        anchor: ``old`` or ``ref``: the policy that the target is measured from.
        objective: ``ratio`` (PPO's clipped exp-ratio), ``matching`` (clipped matching loss) or
            ``regression`` (the squared loss itself).
        normalised: Whether rows are divided by their mean absolute x0 error (DiffusionNFT).
        trust_region: ``clip``, ``fair_clip``, ``normalised_clip``, ``old`` (W2) or ``none``.
        train_unconditional: Whether the unconditional output of classifier-free guidance carries gradient.
        average: What the moving average of the weights is for: ``none``, ``rollout`` (it makes the rollouts
            and is the old policy) or ``pull`` (W2‖o_θ − o_average‖² holds the policy near it).
        kl: ``none``, ``rows`` (trained rows), ``anchors`` (deterministic steps of the rollout) or ``all``
            (both).
        kl_scale: What β multiplies: ``transition`` (‖Δμ‖²/(2σ²), the KL of the step), ``rate`` (‖Δμ‖²/(2τ²)
            with τ² = σ²/Δ, as Flow-GRPO writes it) or ``output`` (‖o_θ − o_ref‖² itself).
        origin: The paper the row comes from.
        idea: What the method does and when to use it, in a few sentences.
        defaults: Settings of ``RunConfig`` that the row changes, as published.
        compositional: Settings that it changes for rewards that check what a caption asks for, like GenEval.
        ocr: Settings that it changes for rewards that read a text in the picture.
    """

    families: tuple[str, ...] = (FLOW, DIFFUSION)
    home: tuple[str, ...] = (FLOW, DIFFUSION)
    order: str = "zeroth"
    branching: str = "trajectory"
    groups: str = "prompt"
    std_epsilon: float = 1e-4
    unbiased_std: bool = False
    drops_silent: str = "none"
    last_step: bool = False
    steps: str = "shared"
    lookahead: str = "terminal"
    lookahead_network: str = "trained"
    form: str = "clean"
    weight: str = "natural"
    strength: str = "one"
    anchor: str = "old"
    objective: str = "matching"
    normalised: bool = False
    trust_region: str = "clip"
    train_unconditional: bool = True
    average: str = "none"
    kl: str = "rows"
    kl_scale: str = "transition"
    origin: str = ""
    idea: str = ""
    defaults: Mapping[str, Any] = field(default_factory=frozen)
    compositional: Mapping[str, Any] = field(default_factory=frozen)
    ocr: Mapping[str, Any] = field(default_factory=frozen)
