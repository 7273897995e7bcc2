"""Published settings of the rows of the forward process: Stable Diffusion 3.5 medium."""

from __future__ import annotations

from trainers.method import FLOW, frozen
from trainers.models.families import ATTENTION_8
from trainers.published import Published
from trainers.published_flow import ADAM, RANK_32

_FORWARD = {
    "group_size": 24,
    "initial_noise": "own",
    "learning_rate": 3e-4,
    "updates_per_rollout": 1,
    "advantage_std": "rollout",
}
_FORWARD_ROW = {"std_epsilon": 1e-4, "unbiased_std": False, "drops_silent": "none"}

PUBLISHED_FORWARD: tuple[Published, ...] = (
    Published(
        "awm",
        FLOW,
        "AWM, arXiv 2509.25050: scxue/advantage_weighted_matching config/dgx_awm.py, "
        "scripts/train_sd3_awm.py",
        frozen(
            **RANK_32,
            **_FORWARD,
            **ADAM,
            prompts_per_update=24,
            rollout_steps=14,
            guidance_scale=1.0,
            advantage="bounded",
            advantage_clamp=5.0,
            clip_range=1.0,
            kl_weight=1e-4,
            kl_scale="output",
            old_weight=1.0,
            old_decay_max=0.3,
            old_decay_rate=1e-3,
            old_decay_start=0,
            forward_draws=6,
            forward_levels="stratified",
            huber_power=0.25,
            ema_decay=0.99,
            ema_every=1,
        ),
        frozen(prompts_per_update=72, kl_weight=1e-3),
        frozen(**_FORWARD_ROW, average="pull"),
        ATTENTION_8,
        ocr=frozen(prompts_per_update=72, kl_weight=3e-3),
        words=frozen(
            solver="SA-Solver of second order, with noise 0.4 between t = 0.3 and 0.9 for GenEval and OCR",
            forward_levels="the same for a micro-batch; the first step among them for PickScore",
        ),
        notes=(
            "The rollout's last steps are bent to t = 0.999 first and half of the one before last.",
            "The six draws leave out the first step and the last tenth; of tiny-flow's six steps that leaves "
            "four draws, one of each.",
        ),
    ),
    Published(
        "diffusion_nft",
        FLOW,
        "DiffusionNFT, arXiv 2509.16117: NVlabs/DiffusionNFT config/nft.py, scripts/train_nft_sd3.py",
        frozen(
            **RANK_32,
            **_FORWARD,
            weight_decay=1e-4,
            max_grad_norm=0.2,
            prompts_per_update=48,
            rollout_steps=10,
            solver="dpm2",
            guidance_scale=1.0,
            advantage="bounded",
            advantage_clamp=5.0,
            contrast_step=1.0,
            kl_weight=2e-5,
            kl_scale="output",
            old_decay_max=0.5,
            old_decay_rate=1e-3,
            old_decay_start=0,
            forward_draws=9,
            forward_levels="uniform",
            ema_decay=0.9,
            ema_every=1,
        ),
        row=frozen(**_FORWARD_ROW, average="rollout"),
        targets=ATTENTION_8,
        ocr=frozen(
            contrast_step=0.1,
            updates_per_rollout=2,
            old_decay_max=0.999,
            old_decay_rate=7.5e-3,
            old_decay_start=75,
        ),
        words=frozen(
            prompts_per_update="on 8 GPUs",
            kl_weight="written 1e-4",
            max_grad_norm="written 1.0",
            contrast_step="several rewards together 0.1",
            rollout_steps="25 for several rewards together",
        ),
        notes=(
            "The published policy loss is multiplied by 5, its largest advantage; here it is not, so the "
            "KL weight 1e-4 is 2e-5 and the gradient's bound 1.0 is 0.2.",
            "Nine draws of different steps: tiny-flow's six steps leave six, all of them.",
        ),
    ),
    Published(
        "ram",
        FLOW,
        "Reinforce Adjoint Matching, arXiv 2605.10759: two independent ports of its "
        "scripts/training_sd3.py; the program itself could not be read",
        frozen(
            **_FORWARD,
            max_grad_norm=1e6,
            prompts_per_update=48,
            rollout_steps=20,
            solver="euler",
            advantage="group",
            kl_weight=1e-3,
            old_decay_max=0.9,
            old_decay_rate=1e-2,
            old_decay_start=0,
            forward_draws=8,
            forward_levels="noise",
        ),
        frozen(kl_weight=1e-2),
        frozen(average="rollout", kl="none", anchor="ref"),
        ocr=frozen(kl_weight=1e-2),
        words=frozen(
            kl_weight="1/m of the program's reward multiplier m: 1000 for PickScore, 100 for GenEval and OCR",
            guidance_scale="rollouts with an unknown scale, training without guidance",
            advantage_clamp="none",
            max_grad_norm="none",
            ema_decay="an average for evaluation, decay unknown",
        ),
        notes=(
            "Noise levels are drawn from all of [0, 1] there, and among the rollout's steps here.",
            "Not known: rank, weight decay, guidance scale, what is added to the standard deviation.",
        ),
    ),
)
