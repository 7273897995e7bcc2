"""Rows that weigh the noise of rollouts by what the finished pictures are worth. Torch-free."""

from __future__ import annotations

from trainers.method import DIFFUSION, FLOW, Method, frozen

_ZEROTH = "trainers.estimators.zeroth_order:ZerothOrder"
_RSM = "Lee et al., Reward Score Matching, arXiv 2604.17415"
_PCPO = "Lee and Ye, PCPO, arXiv 2509.25774"

ZEROTH_ORDER: tuple[Method, ...] = (
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
        drops_silent="branch",
        kl_scale="rate",
        origin=_RSM,
        idea="Deterministic paths; at the first, high-noise steps K noisy branches leave each and run "
        "deterministically to the end, so the difference of their rewards is due to one step's noise."
        " The matching loss pulls the policy towards the better branches, clipped at the same mean "
        "shift at every step. For rewards that check what a caption asks for, the states between the "
        "branching steps hold the policy near the base model as well (anchor_fraction).",
        defaults=frozen(updates_per_rollout=2, kl_weight=1e-2, anchor_fraction=0.0),
        compositional=frozen(kl_scale="transition", kl_weight=4e-3, anchor_fraction=1.0),
    ),
    Method(
        name="grpo",
        title="GRPO",
        summary="Whole noisy trajectories, group-normalised rewards and PPO's clipped ratio; works with"
        " any reward.",
        target=_ZEROTH,
        objective="ratio",
        drops_silent="branch",
        kl_scale="rate",
        origin="Liu et al., Flow-GRPO, arXiv 2505.05470; Xue et al., DanceGRPO, arXiv 2505.07818",
        idea="Every step of every trajectory gets the advantage of the finished picture within the samples"
        " of its prompt, over the spread of the whole rollout. The field's baseline: unbiased towards"
        " no step, and noisy for the same reason.",
        defaults=frozen(updates_per_rollout=2, advantage_std="rollout", kl_weight=1e-2),
        compositional=frozen(kl_weight=4e-2),
        ocr=frozen(kl_weight=4e-2),
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
        drops_silent="branch",
        kl="anchors",
        kl_scale="output",
        origin=_RSM,
        idea="At a few evenly spaced steps of one DDIM path per prompt, K noisy branches leave the same "
        "state and are compared with each other; PCPO's constant weight and the matching loss train "
        "them. Only a sample of the states where nothing branched is held near the base model.",
        defaults=frozen(updates_per_rollout=2, kl_weight=3.24e-4, anchor_fraction=0.1),
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
        drops_silent="path",
        origin="He et al., TempFlow-GRPO, arXiv 2508.04324",
        idea="The method that introduced one-step branches: their reward differences credit one step. K "
        "branches leave every step but the last, and steps weigh as much as the noise they inject.",
        defaults=frozen(updates_per_rollout=2, kl_weight=1e-3),
        compositional=frozen(kl_weight=4e-3),
        ocr=frozen(kl_weight=4e-3),
    ),
    Method(
        name="branch_grpo",
        title="BranchGRPO",
        summary="Noisy trajectories that split into a tree; rewards of the leaves are averaged up to "
        "each node; works with any reward.",
        target=_ZEROTH,
        branching="tree",
        objective="ratio",
        last_step=True,
        std_epsilon=1e-8,
        unbiased_std=True,
        origin="Li et al., BranchGRPO, arXiv 2509.06040",
        idea="Trajectories share their first steps and split at a few depths, so one rollout gives "
        "advantages at every depth for less network time than separate trajectories. A node is worth "
        "the mean of its leaves, compared within its tree and depth; every edge of the tree counts "
        "once.",
        defaults=frozen(updates_per_rollout=2, initial_noise="shared", kl_weight=0.0),
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
        drops_silent="branch",
        origin="Wang et al., GRPO-Guard, arXiv 2510.22319",
        idea="The log-ratio's drift is removed and the rest is scaled by σ, so that all steps reach the"
        " clip alike and over-optimisation is stopped where PPO's clip would let it through.",
        defaults=frozen(updates_per_rollout=2, kl_weight=0.0, clip_range=4e-6),
        compositional=frozen(clip_range=2e-6),
        ocr=frozen(clip_range=2e-6),
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
        std_epsilon=1e-8,
        origin=_PCPO,
        idea="The factor k/σ of the log-ratio, which swings over the schedule, is replaced by its mean,"
        " and the exponential by the clipped log-ratio itself: proportionate credit for every step.",
        defaults=frozen(updates_per_rollout=2, kl_weight=0.0),
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
        drops_silent="branch",
        kl_scale="rate",
        origin=_PCPO,
        idea="As PCPO, with k/σ replaced by ζΔ, so that a step counts for the time it covers; ζ keeps "
        "the mean weight of the schedule unchanged.",
        defaults=frozen(updates_per_rollout=2, advantage_std="rollout", kl_weight=1e-2),
        compositional=frozen(kl_scale="transition", kl_weight=4e-3),
    ),
    Method(
        name="ppo",
        title="PPO (DDPO)",
        summary="Whole noisy trajectories, rewards normalised over the whole batch, PPO's clipped "
        "ratio; works with any reward.",
        target=_ZEROTH,
        objective="ratio",
        groups="history",
        last_step=True,
        std_epsilon=1e-6,
        origin="Black et al., DDPO, arXiv 2305.13301",
        idea="GRPO's predecessor: a picture is compared with the latest rewards of its own prompt once "
        "these are sixteen, and with the whole rollout before. For rewards that do not depend on the "
        "prompt it wastes no group.",
        defaults=frozen(updates_per_rollout=2, kl_weight=0.0),
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
        "model. Nothing clips it. With one update a rollout and no silent group it is GRPO with the "
        "group's own spread and a KL of the same strength: the ratio is 1 there and no clip acts.",
    ),
    Method(
        name="custom",
        title="Custom",
        summary="Your own row: any valid combination of guidance, weight, trust region and branching.",
        target=_ZEROTH,
        objective="ratio",
        drops_silent="branch",
        kl_scale="rate",
        origin="this project",
        idea="Composes a row of the table from parts: --set estimator.order=first estimator.weight=one "
        "and so on. Parts that do not go together are refused with the reason. Without parts it is "
        "GRPO.",
        defaults=frozen(updates_per_rollout=2, advantage_std="rollout", kl_weight=1e-2),
    ),
)
