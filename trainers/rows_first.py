"""Rows that read the reward's gradient. Torch-free."""

from __future__ import annotations

from trainers.method import DIFFUSION, FLOW, Method, frozen

_FIRST = "trainers.estimators.first_order:FirstOrder"
_RSM = "Lee et al., Reward Score Matching, arXiv 2604.17415"

FIRST_ORDER: tuple[Method, ...] = (
    Method(
        name="rsm_first_order_flow",
        title="RSM first order (flow)",
        summary="Reads one reward gradient at each finished picture; needs a differentiable reward.",
        target=_FIRST,
        families=(FLOW,),
        home=(FLOW,),
        order="first",
        branching="none",
        weight="one",
        strength="clean_share",
        anchor="ref",
        objective="regression",
        trust_region="none",
        kl="none",
        train_unconditional=False,
        origin=_RSM,
        idea="VGG-Flow with one reward gradient per trajectory, taken at the finished picture and faded "
        "out towards noise by 1 − t, at half its scale.",
    ),
    Method(
        name="rsm_first_order_diffusion",
        title="RSM first order (diffusion)",
        summary="One reward gradient per finished picture, matched along its own noisy trajectory; "
        "needs a differentiable reward.",
        target=_FIRST,
        families=(DIFFUSION,),
        home=(DIFFUSION,),
        order="first",
        branching="trajectory",
        form="transition",
        weight="inverse_variance",
        strength="one",
        anchor="ref",
        objective="regression",
        trust_region="old",
        kl="none",
        steps="stratified",
        last_step=True,
        origin=_RSM,
        idea="Residual ∇-DB without its residual network, with one reward gradient per trajectory and the "
        "variance-balanced weight k²/σ². Each trajectory trains its last noisy step and one of every "
        "stratum; W2 holds the second update of a rollout near the first.",
        defaults=frozen(updates_per_rollout=2, old_weight=1e2),
    ),
    Method(
        name="vgg_flow",
        title="VGG-Flow (pruned)",
        summary="Reads the reward gradient at every step's clean estimate; needs a differentiable reward.",
        target=_FIRST,
        home=(FLOW,),
        order="first",
        branching="none",
        lookahead="current",
        weight="one",
        strength="clean_share_squared",
        anchor="ref",
        objective="regression",
        trust_region="none",
        kl="none",
        train_unconditional=False,
        origin="Liu et al., VGG-Flow, arXiv 2512.05116",
        idea="The gradient at the one-step clean estimate of each state, faded out by (1 − t)² and "
        "clipped at the running 0.8-quantile of its norm; the value network of the paper is left out, "
        "as the RSM study found it negligible.",
        defaults=frozen(gradient_quantile=0.8),
    ),
    Method(
        name="residual_nabla_db",
        title="Residual ∇-DB (pruned)",
        summary="Matches the transition's score to the reward gradient at the next state; needs a "
        "differentiable reward.",
        target=_FIRST,
        home=(DIFFUSION,),
        order="first",
        branching="trajectory",
        lookahead="next",
        form="transition",
        weight="score",
        strength="next_clean_share_squared",
        anchor="ref",
        objective="regression",
        trust_region="old",
        kl="none",
        steps="stratified",
        last_step=True,
        origin="Liu et al., gradient-informed GFlowNets, arXiv 2412.07775",
        idea="Gradient-informed detailed balance, without the residual network: the score of the "
        "transition is matched to that of the base model plus the reward's gradient at the next state's"
        " clean estimate.",
        defaults=frozen(updates_per_rollout=2, old_weight=1e2),
    ),
    Method(
        name="sqdf",
        title="SQDF",
        summary="Follows the discounted reward gradient at the reparameterised next state under a KL; "
        "needs a differentiable reward.",
        target=_FIRST,
        home=(DIFFUSION,),
        order="first",
        branching="trajectory",
        lookahead="next",
        form="transition",
        weight="kl_natural",
        strength="discounted",
        anchor="ref",
        objective="regression",
        trust_region="none",
        kl="none",
        steps="uniform",
        last_step=True,
        lookahead_network="base",
        origin="Kang et al., SQDF, arXiv 2512.04559",
        idea="A soft Q-function read from the reward of the next state's clean estimate, which the frozen "
        "base model makes, with a discount that trusts low noise more, an optional m-step lookahead "
        "(lookahead_steps) and an optional replay buffer (replay_size).",
        defaults=frozen(discount=0.9, kl_weight=0.1),
    ),
)
