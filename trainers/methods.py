"""The method table: every named method is one row of settings of the reward-score-matching loss.

    L = W1 · ‖ o_θ − (o_anchor + γ·G) ‖² + W2 · ‖ o_θ − o_old ‖²          (per-element means)

A row says where the guidance G comes from (``estimator``), how rollouts are made (``branching``), how
steps are weighed (``weight``, ``strength``), what holds the policy back (``trust_region``, ``kl``) and
what the usual settings are. Two methods differ by a row, or by a row and one estimator file. The module
is torch-free so that the page and the command line can list and check methods at no cost.
"""

from __future__ import annotations

from types import MappingProxyType

from trainers.errors import InputError
from trainers.method import DIFFUSION, FLOW, Method
from trainers.registry import Registry

_ZEROTH = "trainers.estimators.zeroth_order:ZerothOrder"
_FIRST = "trainers.estimators.first_order:FirstOrder"
_FORWARD = "trainers.estimators.forward_process:ForwardProcess"
_RSM = "Lee et al., Reward Score Matching, arXiv 2604.17415"
_PCPO = "Lee and Ye, PCPO, arXiv 2509.25774"

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
            home=(FLOW,),
            branching="per_step",
            weight="natural_scaled",
            trust_region="fair_clip",
            kl="all",
            origin=_RSM,
            idea="One deterministic path per prompt; at the first, high-noise steps K noisy branches leave "
            "it and run deterministically to the end, so the difference of their rewards is due to one "
            "step's noise. The matching loss pulls the policy towards the better branches, clipped at the "
            "same mean shift at every step. The first choice for a black-box reward on a flow model.",
        ),
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
            origin=_RSM,
            idea="VGG-Flow with one reward gradient per trajectory, taken at the finished picture and faded"
            " out towards noise by 1 − t. The first choice for a differentiable reward on a flow model.",
        ),
        Method(
            name="grpo",
            title="GRPO",
            summary="Whole noisy trajectories, group-normalised rewards and PPO's clipped ratio; works with"
            " any reward.",
            target=_ZEROTH,
            objective="ratio",
            origin="Liu et al., Flow-GRPO, arXiv 2505.05470; Xue et al., DanceGRPO, arXiv 2505.07818",
            idea="Every step of every trajectory gets the advantage of the finished picture within the "
            "samples of its prompt. The field's baseline: unbiased towards no step, and noisy for the same "
            "reason.",
        ),
        Method(
            name="rsm_zeroth_order_diffusion",
            title="RSM zeroth order (diffusion)",
            summary="Branches at a few evenly spaced steps with one constant weight; works with any reward.",
            target=_ZEROTH,
            families=(DIFFUSION,),
            home=(DIFFUSION,),
            branching="per_step",
            weight="schedule_mean",
            kl="all",
            origin=_RSM,
            idea="Branches at a few evenly spaced steps of a DDIM path with PCPO's constant weight, and "
            "holds a sample of the deterministic steps near the base model. The first choice for a black-"
            "box reward on a diffusion model.",
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
            origin=_RSM,
            idea="Residual ∇-DB without its residual network, with one reward gradient per trajectory and "
            "the variance-balanced weight k²/σ². The first choice for a differentiable reward on a "
            "diffusion model.",
        ),
        Method(
            name="tempflow_grpo",
            title="TempFlow-GRPO",
            summary="K branches at each chosen step of a deterministic path, PPO's ratio, noise-aware "
            "weights; works with any reward.",
            target=_ZEROTH,
            home=(FLOW,),
            branching="per_step",
            weight="noise_aware",
            objective="ratio",
            origin="He et al., TempFlow-GRPO, arXiv 2508.04324",
            idea="The method that introduced one-step branches: their reward differences credit one step. "
            "Steps are weighed by the noise they inject. Use it to compare with the redesign that grew out "
            "of it.",
        ),
        Method(
            name="branch_grpo",
            title="BranchGRPO",
            summary="Noisy trajectories that split into a tree; rewards of the leaves are averaged up to "
            "each node; works with any reward.",
            target=_ZEROTH,
            branching="tree",
            objective="ratio",
            origin="Li et al., BranchGRPO, arXiv 2509.06040",
            idea="Trajectories share their first steps and split at a few depths, so one rollout gives "
            "advantages at every depth for less network time than separate trajectories.",
        ),
        Method(
            name="grpo_guard",
            title="GRPO-Guard",
            summary="GRPO whose ratio is centred and normalised over steps, so that the clip acts evenly; "
            "works with any reward.",
            target=_ZEROTH,
            home=(FLOW,),
            weight="natural_scaled",
            objective="ratio",
            trust_region="normalised_clip",
            origin="Wang et al., GRPO-Guard, arXiv 2510.22319",
            idea="The log-ratio's drift is removed and the rest is scaled by σ, so that all steps reach the"
            " clip alike and over-optimisation is stopped where PPO's clip would let it through.",
        ),
        Method(
            name="pcpo",
            title="PCPO",
            summary="GRPO's rollouts with a log-ratio whose steps weigh in proportion, clipped directly; "
            "works with any reward.",
            target=_ZEROTH,
            families=(DIFFUSION,),
            home=(DIFFUSION,),
            weight="schedule_mean",
            origin=_PCPO,
            idea="The factor k/σ of the log-ratio, which swings over the schedule, is replaced by its mean,"
            " and the exponential by the clipped log-ratio itself: proportionate credit for every step.",
        ),
        Method(
            name="pcpo_flow",
            title="PCPO (flow)",
            summary="PCPO for flows: each step's log-ratio weighs in proportion to the time it covers; "
            "works with any reward.",
            target=_ZEROTH,
            families=(FLOW,),
            home=(FLOW,),
            weight="interval",
            origin=_PCPO,
            idea="As PCPO, with k/σ replaced by ζΔ, so that a step counts for the time it covers; ζ keeps "
            "the mean weight of the schedule unchanged.",
        ),
        Method(
            name="ppo",
            title="PPO (DDPO)",
            summary="Whole noisy trajectories, rewards normalised over the whole batch, PPO's clipped "
            "ratio; works with any reward.",
            target=_ZEROTH,
            groups="batch",
            objective="ratio",
            origin="Black et al., DDPO, arXiv 2305.13301",
            idea="GRPO's predecessor: advantages compare all prompts with each other, so easy prompts look "
            "good. For rewards that do not depend on the prompt it wastes no group.",
        ),
        Method(
            name="reinforce_kl",
            title="REINFORCE with KL",
            summary="Regresses on the base model plus the advantage-weighted noise of whole trajectories; "
            "works with any reward.",
            target=_ZEROTH,
            weight="kl_natural",
            strength="inverse_kl",
            anchor="ref",
            objective="regression",
            trust_region="none",
            kl="none",
            origin="Fan et al., DPOK, arXiv 2305.16381",
            idea="The plain policy gradient with a KL penalty, written as one regression towards the base "
            "model. Nothing clips it, so it wants a small learning rate and one update per rollout.",
        ),
        Method(
            name="vgg_flow",
            title="VGG-Flow (pruned)",
            summary="Reads the reward gradient at every step's clean estimate; needs a differentiable "
            "reward.",
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
            origin="Liu et al., VGG-Flow, arXiv 2512.05116",
            idea="The gradient at the one-step clean estimate of each state, faded out by (1 − t)² and "
            "clipped at the running 0.8-quantile of its norm; the value network of the paper is left out, "
            "as the RSM study found it negligible.",
            defaults=MappingProxyType({"gradient_quantile": 0.8}),
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
            origin="Liu et al., gradient-informed GFlowNets, arXiv 2412.07775",
            idea="Gradient-informed detailed balance, without the residual network: the score of the "
            "transition is matched to that of the base model plus the reward's gradient at the next state's"
            " clean estimate.",
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
            origin="Kang et al., SQDF, arXiv 2512.04559",
            idea="A soft Q-function read from the reward of the next state's clean estimate, with a "
            "discount that trusts low noise more, an optional m-step lookahead (lookahead_steps) and an "
            "optional replay buffer (replay_size).",
            defaults=MappingProxyType({"discount": 0.9, "kl_weight": 0.1}),
        ),
        Method(
            name="awm",
            title="Advantage-weighted matching",
            summary="Noises finished pictures again and regresses on them by their advantage; works with "
            "any reward and any sampler.",
            target=_FORWARD,
            home=(FLOW,),
            branching="none",
            weight="forward_one",
            objective="ratio",
            kl="plain",
            origin="Xue et al., Advantage Weighted Matching, arXiv 2509.25050",
            idea="Pre-training's own loss on the model's pictures, weighed by their advantage and clipped "
            "like PPO. Rollouts are deterministic and cost no noise.",
        ),
        Method(
            name="diffusion_nft",
            title="DiffusionNFT",
            summary="Contrasts a better and a worse policy on re-noised finished pictures, slowly following"
            " the old one; works with any reward and any sampler.",
            target=_FORWARD,
            home=(FLOW,),
            branching="none",
            weight="contrast",
            strength="inverse_kl",
            objective="regression",
            normalised=True,
            trust_region="none",
            kl="plain",
            origin="Zheng et al., DiffusionNFT, arXiv 2509.16117",
            idea="Good pictures pull, bad pictures push, through two implicit policies on either side of a "
            "slowly updated old one; the sum of both losses is one regression on o_old + (Â/b)(u − o_old).",
            defaults=MappingProxyType({"advantage": "bounded", "kl_weight": 1e-4, "old_decay_max": 0.5}),
        ),
        Method(
            name="ram",
            title="Reinforce Adjoint Matching",
            summary="Regresses on the base model plus the reward-weighted error of re-noised pictures; "
            "works with any reward and any sampler.",
            target=_FORWARD,
            home=(FLOW,),
            branching="none",
            weight="one",
            strength="inverse_kl",
            anchor="ref",
            objective="regression",
            trust_region="none",
            kl="none",
            origin="Reinforce Adjoint Matching",
            idea="The tilted law's score by the REINFORCE identity: the target is the base model's output "
            "plus (Â/β)(u − o), so β is the KL strength itself and nothing else holds the policy back.",
            defaults=MappingProxyType({"advantage": "mean", "kl_weight": 1.0}),
        ),
        Method(
            name="custom",
            title="Custom",
            summary="Your own row: any valid combination of guidance, weight, trust region and branching.",
            target=_ZEROTH,
            objective="ratio",
            origin="this project",
            idea="Composes a row of the table from parts: --set estimator.order=first estimator.weight=one "
            "and so on. Parts that do not go together are refused with the reason. Without parts it is "
            "GRPO.",
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
