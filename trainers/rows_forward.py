"""Rows of the forward process: finished pictures, noised again as in pre-training. Torch-free."""

from __future__ import annotations

from trainers.method import FLOW, Method, frozen

_FORWARD = "trainers.estimators.forward_process:ForwardProcess"

FORWARD_PROCESS: tuple[Method, ...] = (
    Method(
        name="awm",
        title="Advantage-weighted matching",
        summary="Noises finished pictures again and regresses on them by their advantage; works with "
        "any reward and any sampler.",
        target=_FORWARD,
        home=(FLOW,),
        branching="none",
        objective="ratio",
        weight="forward_huber",
        average="pull",
        kl="rows",
        kl_scale="output",
        origin="Xue et al., Advantage Weighted Matching, arXiv 2509.25050",
        idea="Pre-training's own loss on the model's pictures, weighed by their advantage: a generalized "
        "Huber of the denoising error. With one update a rollout no clip acts; what holds the policy "
        "back is the pull towards the base model and, after hundreds of updates, towards a moving average "
        "of itself, which lags more and more. Rollouts are deterministic and cost no noise.",
        defaults=frozen(
            advantage="bounded",
            advantage_std="rollout",
            solver="dpm2",
            clip_range=1.0,
            kl_weight=1e-4,
            old_weight=1.0,
            old_decay_max=0.3,
            forward_draws=6,
            forward_levels="stratified",
        ),
        compositional=frozen(kl_weight=1e-3),
        ocr=frozen(kl_weight=3e-3),
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
        average="rollout",
        kl="rows",
        kl_scale="output",
        origin="Zheng et al., DiffusionNFT, arXiv 2509.16117",
        idea="Good pictures pull, bad pictures push, through two implicit policies on either side of a "
        "slowly updated old one, which also makes the rollouts.",
        defaults=frozen(
            advantage="bounded",
            advantage_std="rollout",
            solver="dpm2",
            kl_weight=2e-5,
            old_decay_max=0.5,
            forward_draws=9,
        ),
        ocr=frozen(
            contrast_step=0.1,
            updates_per_rollout=2,
            old_decay_rate=7.5e-3,
            old_decay_max=0.999,
            old_decay_start=75,
        ),
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
        average="rollout",
        origin="Reinforce Adjoint Matching, arXiv 2605.10759",
        idea="The tilted law's score by the REINFORCE identity: the target is the base model's output plus"
        " (Â/β)(u − o_old), so β is the KL strength itself and nothing else holds the policy back. "
        "While the old policy is the trained one, its gradient is 1/β times that of AWM's matching "
        "with plain weights under a KL of β.",
        defaults=frozen(
            advantage_std="rollout",
            kl_weight=1e-3,
            old_decay_max=0.9,
            old_decay_rate=0.01,
            forward_draws=8,
            forward_levels="noise",
        ),
        compositional=frozen(kl_weight=1e-2),
        ocr=frozen(kl_weight=1e-2),
    ),
)
