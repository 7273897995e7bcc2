"""Published settings of the rows on flow models, but for those of the forward process.

The model is Stable Diffusion 3.5 medium unless a source says otherwise.
"""

from __future__ import annotations

from trainers.method import FLOW, frozen
from trainers.models.families import ATTENTION_4, ATTENTION_8
from trainers.published import Published

_RSM = "RSM, arXiv 2604.17415: jaylee2000/rsm"
RANK_32 = {"lora_rank": 32, "lora_alpha": 64.0}
ADAM = {"weight_decay": 1e-4, "max_grad_norm": 1.0}
_SHIPPED = {"ema_decay": 0.9, "ema_every": 8}
_GROUPS = {"advantage": "group", "advantage_clamp": 5.0}
# Flow-GRPO's settings, which its descendants keep.
_GRPO = {
    **RANK_32,
    "rollout_steps": 10,
    "guidance_scale": 4.5,
    "kernel": "flow_sde",
    "noise_level": 0.7,
    "initial_noise": "own",
    "learning_rate": 3e-4,
    **ADAM,
    "updates_per_rollout": 2,
    "clip_range": 1e-4,
    **_GROUPS,
    **_SHIPPED,
}
_GRPO_ROW = {
    "std_epsilon": 1e-4,
    "unbiased_std": False,
    "drops_silent": "branch",
    "last_step": False,
    "train_unconditional": True,
}
_FIRST = {
    "lora_rank": 8,
    "lora_alpha": 8.0,
    "prompts_per_update": 8,
    "roots_per_prompt": 1,
    "rollout_steps": 20,
    "train_fraction": 1.0,
    "guidance_scale": 5.0,
    "initial_noise": "own",
    "resolution": 1024,
    "decoder": "tiny",
    "learning_rate": 5e-4,
    "weight_decay": 1e-2,
    "max_grad_norm": 1.0,
    "updates_per_rollout": 1,
    "gradient_units": "reward",
    "old_weight": 0.0,
    "ema_decay": 0.0,
}
_FIRST_WORDS = {
    "prompts_per_update": "per GPU, on 4 that draw the same ones, as their seeds are equal",
    "gradient_quantile": "norms cut at 1.0, which the running quantile 0.8 replaces only after an epoch's "
    "first update, and there is one",
}
_FIRST_ROW = {"train_unconditional": False, "lookahead_network": "trained", "kl": "none", "average": "none"}
PUBLISHED_FLOW: tuple[Published, ...] = (
    Published(
        "rsm_zeroth_order_flow",
        FLOW,
        f"{_RSM}, sd35_zeroth_order: config/sd3_matrix.py, config/sd3_reward_presets.py, "
        "scripts/train_sd3_pr.py (lowsnr2, branch, matching, fairclip2)",
        frozen(
            **_GRPO,
            prompts_per_update=16,
            roots_per_prompt=4,
            branches=(6, 6, 8, 10),
            advantage_std="group",
            kl_weight=1e-2,
            kl_scale="rate",
            anchor_fraction=0.0,
        ),
        frozen(prompts_per_update=48, kl_weight=4e-3, kl_scale="transition", anchor_fraction=1.0),
        frozen(**_GRPO_ROW, kl="all"),
        ATTENTION_8,
        notes=(
            "Anchors are the five deterministic steps of every root but the last step; each weighs K̄ = "
            "7.5 over their number.",
            "The paper's run is GenEval's on 4 GPUs. For other rewards the numbers are those of the "
            "program, which refuses this profile there because its batch does not divide.",
        ),
    ),
    Published(
        "grpo",
        FLOW,
        "Flow-GRPO, arXiv 2505.05470: yifan123/flow_grpo config/grpo.py, config/base.py, "
        "scripts/train_sd3.py",
        frozen(
            **_GRPO,
            prompts_per_update=48,
            group_size=24,
            train_fraction=1.0,
            advantage_std="rollout",
            kl_weight=1e-2,
            kl_scale="rate",
        ),
        frozen(kl_weight=4e-2),
        frozen(**_GRPO_ROW, kl="rows"),
        ATTENTION_8,
        ocr=frozen(kl_weight=4e-2),
        words=frozen(prompts_per_update="on 32 GPUs; 16 with 16 samples each on 4, 8 with 8 on one"),
        notes=(
            "The published KL divides by 2τ², τ² = σ²/Δ (`kl_scale` rate). The paper's first program "
            "divided by 2σ², with 1e-3 (GenEval 4e-3).",
            "Silent groups leave the mean, but where the rest does not divide into batches some come back.",
            "DanceGRPO (arXiv 2505.07818) on FLUX: kernel flow_constant with noise level 0.3, one initial "
            "noise for a GPU's samples, 16 steps of which 9 of the first 15 are trained, 12 samples a "
            "prompt, no KL.",
        ),
    ),
    Published(
        "tempflow_grpo",
        FLOW,
        "TempFlow-GRPO, arXiv 2508.04324: Shredded-Pork/TempFlow-GRPO config/dgx.py, scripts/train_sd3_pr.py",
        frozen(
            **_GRPO,
            prompts_per_update=48,
            roots_per_prompt=4,
            branches=(6,) * 9,
            advantage_std="group",
            kl_weight=1e-3,
            kl_scale="transition",
        ),
        frozen(kl_weight=4e-3),
        frozen(**_GRPO_ROW | {"drops_silent": "path"}, kl="rows"),
        ATTENTION_8,
        ocr=frozen(kl_weight=4e-3),
        words=frozen(prompts_per_update="on 48 GPUs; RSM's program reproduces it with 16"),
        notes=("The weight 2.25·σ of Stable Diffusion 3.5 is σ over its mean over the trained steps.",),
    ),
    Published(
        "branch_grpo",
        FLOW,
        "BranchGRPO, arXiv 2509.06040: Fredreic1849/BranchGRPO fastvideo/train_branchgrpo_flux.py, "
        "finetune_flux_branchgrpo_8gpus.sh (FLUX)",
        frozen(
            rollout_steps=20,
            branches=(2, 0, 0, 2, 0, 0, 2, 0, 0, 2),
            prompts_per_update=16,
            roots_per_prompt=1,
            guidance_scale=3.5,
            kernel="flow_constant",
            noise_level=0.3,
            learning_rate=1e-5,
            **ADAM,
            updates_per_rollout=37,
            clip_range=1e-3,
            **_GROUPS,
            advantage_std="group",
            train_fraction=1.0,
            kl_weight=0.0,
            ema_decay=0.0,
        ),
        row=frozen(std_epsilon=1e-8, unbiased_std=True, drops_silent="none", last_step=True),
        words=frozen(
            lora_rank="none, all weights are trained",
            initial_noise="one for all prompts of a GPU",
            updates_per_rollout="12 edges each of a GPU's two trees",
            guidance_scale="FLUX's distilled scale",
        ),
        notes=(
            "Children of a split get four times the kernel's noise, while their log-probability is that of "
            "the kernel; here the kernel's own noise.",
            "The picture that is rewarded is the last step's clean estimate; here the last state.",
            "Pruning of the tree is off in the published script, and not offered here.",
        ),
    ),
    Published(
        "grpo_guard",
        FLOW,
        "GRPO-Guard, arXiv 2510.22319: yifan123/flow_grpo config/grpo_guard.py, "
        "scripts/train_sd3_GRPO_Guard.py",
        frozen(
            **_GRPO | {"learning_rate": 1e-4, "clip_range": 4e-6, "prompts_per_update": 48, "group_size": 24},
            train_fraction=1.0,
            advantage_std="group",
            kl_weight=0.0,
        ),
        frozen(clip_range=2e-6),
        frozen(**_GRPO_ROW),
        ATTENTION_8,
        ocr=frozen(clip_range=2e-6),
        words=frozen(prompts_per_update="on 16 GPUs"),
        notes=(
            "The drift that is taken out of the log-ratio is one mean over the micro-batch as the program is "
            "written; here each row's own, as in the paper.",
        ),
    ),
    Published(
        "pcpo_flow",
        FLOW,
        f"PCPO, arXiv 2509.25774, as in {_RSM}, sd35_zeroth_order: config/sd3_matrix.py, "
        "scripts/train_sd3.py (pcpo)",
        frozen(
            **_GRPO,
            prompts_per_update=16,
            group_size=24,
            train_fraction=1.0,
            advantage_std="rollout",
            kl_weight=1e-2,
            kl_scale="rate",
            interval_weight=4.3152134639895925,
        ),
        frozen(prompts_per_update=48, kl_weight=4e-3, kl_scale="transition"),
        frozen(**_GRPO_ROW, kl="rows", objective="matching"),
        ATTENTION_8,
        notes=(
            "ζ = 4.3152 is a literal of the program without a derivation. Other models get the mean over "
            "their trained steps, which would be 3.97 here.",
        ),
    ),
    Published(
        "vgg_flow",
        FLOW,
        f"VGG-Flow, arXiv 2512.05116, without its value network as in {_RSM}, sd35_first_order: "
        "config/hpsv2_geneval.py, config/default_config.py, lib/vggflow",
        frozen(**_FIRST),
        row=frozen(**_FIRST_ROW, lookahead="current", strength="clean_share_squared"),
        targets=ATTENTION_4,
        words=frozen(
            **_FIRST_WORDS,
            reward_scale="3e7 × the raw gradient of HPSv2.1",
            learning_rate="lzzcd001/vggflow 1e-4 to 1e-3",
            weight_decay="lzzcd001/vggflow 1e-4",
            train_fraction="lzzcd001/vggflow 6 of 20 steps, always with the last",
        ),
        notes=(
            "lzzcd001/vggflow trains Stable Diffusion 3 medium with a value network and scales of 1e3 to "
            "1e4.",
        ),
    ),
    Published(
        "rsm_first_order_flow",
        FLOW,
        f"{_RSM}, sd35_first_order: config/hpsv2_geneval_ours.py, config/default_config.py, lib/vggflow",
        frozen(**_FIRST),
        row=frozen(**_FIRST_ROW, lookahead="terminal", strength="clean_share"),
        targets=ATTENTION_4,
        words=frozen(**_FIRST_WORDS, reward_scale="1.5e7 × the raw gradient, half of VGG-Flow's"),
    ),
)
