"""Published settings of the rows on diffusion models: Stable Diffusion 1.5 unless said otherwise."""

from __future__ import annotations

from trainers.method import DIFFUSION, frozen
from trainers.models.families import ATTENTION_4
from trainers.published import Published

_RSM = "RSM, arXiv 2604.17415: jaylee2000/rsm"
_COMMON = {
    "rollout_steps": 50,
    "guidance_scale": 5.0,
    "noise_level": 1.0,
    "weight_decay": 1e-4,
    "max_grad_norm": 1.0,
    "ema_decay": 0.0,
}
_PPO = {
    **_COMMON,
    "updates_per_rollout": 2,
    "clip_range": 1e-4,
    "advantage": "group",
    "advantage_clamp": 5.0,
}
_PCPO = {
    **_PPO,
    "lora_rank": 16,
    "lora_alpha": 16.0,
    "prompts_per_update": 8,
    "kernel": "pcpo",
    "learning_rate": 3e-4,
    "advantage_std": "group",
}
_PCPO_WORDS = {"prompts_per_update": "per GPU"}
_WEIGHT = (
    "The published weight is 0.5169 at every step, the mean |k/σ| of DDPM, although the larger root is "
    "sampled, whose mean is 0.5281; the weight is DDPM's here too."
)
_NABLA = {
    **_COMMON,
    "lora_rank": 8,
    "lora_alpha": 8.0,
    "prompts_per_update": 256,
    "roots_per_prompt": 1,
    "kernel": "ddim",
    "initial_noise": "own",
    "updates_per_rollout": 2,
    "train_fraction": 0.2,
    "old_weight": 1e2,
    "gradient_units": "reward",
    "gradient_quantile": 1.0,
}
_NABLA_WORDS = {
    "prompts_per_update": "on 4 GPUs",
    "train_fraction": "of 50, one of each of 10 parts, and the last",
}
_NABLA_ROW = {
    "steps": "stratified",
    "last_step": True,
    "train_unconditional": True,
    "lookahead_network": "trained",
    "kl": "none",
}

PUBLISHED_DIFFUSION: tuple[Published, ...] = (
    Published(
        "grpo",
        DIFFUSION,
        "DanceGRPO, arXiv 2505.07818: XueZeyue/DanceGRPO fastvideo/train_grpo_sd.py, config_sd/dgx.py "
        "(hpsv2, Stable Diffusion 1.4)",
        frozen(
            **_PPO,
            prompts_per_update=32,
            group_size=16,
            kernel="ddim",
            learning_rate=1e-5,
            advantage_std="group",
            train_fraction=1.0,
            kl_weight=0.0,
        ),
        row=frozen(
            std_epsilon=1e-8,
            unbiased_std=True,
            drops_silent="none",
            last_step=False,
            train_unconditional=True,
        ),
        words=frozen(
            lora_rank="none, all weights are trained",
            prompts_per_update="4 on each of 8 GPUs",
            initial_noise="one for all samples of a GPU",
        ),
    ),
    Published(
        "rsm_zeroth_order_diffusion",
        DIFFUSION,
        f"{_RSM}, sd15_zeroth_order: configs/train/base_grpo_pr_uwsigma_lora10.yaml, "
        "train_grpo_pr.py (HPSv2.1)",
        frozen(
            **_PCPO,
            roots_per_prompt=1,
            branches=tuple(20 if step % 10 == 0 else 0 for step in range(41)),
            kl_weight=3.24e-4,
            kl_scale="output",
            anchor_fraction=0.1,
        ),
        row=frozen(
            std_epsilon=1e-4,
            unbiased_std=False,
            drops_silent="branch",
            kl="anchors",
            train_unconditional=True,
        ),
        targets=ATTENTION_4,
        words=frozen(
            **_PCPO_WORDS,
            branches="4 of each of 5 copies of one noise, which walk the same path",
            initial_noise="one for all prompts of a batch",
            kl_weight="on anchors alone: 0.4 of 8e-5·½·4.5²",
        ),
        notes=(
            _WEIGHT,
            "The program spreads its 80 anchors over the first 80 of 200 micro-batches: the first update "
            "gets 0.8 of 8e-5·½·4.5² = 8.1e-4 and the second none. On average that is 3.24e-4, which every "
            "update gets here.",
        ),
    ),
    Published(
        "pcpo",
        DIFFUSION,
        f"PCPO, arXiv 2509.25774, as in {_RSM}, sd15_zeroth_order: configs/train/hpsv2_1_lora_grpo.yaml, "
        "train_grpo.py",
        frozen(**_PCPO, group_size=16, train_fraction=1.0, kl_weight=0.0),
        row=frozen(
            std_epsilon=1e-8,
            unbiased_std=False,
            drops_silent="none",
            last_step=False,
            train_unconditional=True,
        ),
        targets=ATTENTION_4,
        words=frozen(
            **_PCPO_WORDS,
            initial_noise="two a rollout: one for the first half of the samples, one for the rest",
        ),
        notes=(_WEIGHT,),
    ),
    Published(
        "ppo",
        DIFFUSION,
        "DDPO, arXiv 2305.13301: kvablack/ddpo-pytorch config/base.py, config/dgx.py (aesthetic), "
        "scripts/train.py",
        frozen(
            **_PPO,
            lora_rank=4,
            lora_alpha=4.0,
            kernel="ddim",
            initial_noise="own",
            learning_rate=3e-4,
            history_size=32,
            train_fraction=1.0,
            kl_weight=0.0,
        ),
        row=frozen(
            groups="history",
            std_epsilon=1e-6,
            unbiased_std=False,
            drops_silent="none",
            last_step=True,
            train_unconditional=True,
        ),
        targets=ATTENTION_4,
        words=frozen(
            prompts_per_update="256 samples, each with a prompt of its own drawn at random",
            group_size="none",
            history_size="compressibility 16",
            updates_per_rollout="compressibility 4",
            lora_rank="the default of the diffusers of its time",
        ),
    ),
    Published(
        "reinforce_kl",
        DIFFUSION,
        "DPOK, arXiv 2305.16381: google-research/google-research dpok/README.md (several prompts), "
        "dpok/train_online_pg.py, dpok/pipeline_stable_diffusion_extended.py",
        frozen(
            **_COMMON
            | {"guidance_scale": 7.5, "weight_decay": 0.0, "max_grad_norm": 0.1, "updates_per_rollout": 5},
            lora_rank=4,
            lora_alpha=4.0,
            kernel="ddim",
            initial_noise="own",
            learning_rate=1e-5,
        ),
        row=frozen(train_unconditional=True),
        targets=ATTENTION_4,
        words=frozen(
            kl_weight="0.1·‖o − o_ref‖² against 1000·Â (one prompt: 0.01 against 10)",
            advantage="reward minus a learned value",
            prompts_per_update="6 per GPU, one sample each",
            updates_per_rollout="24 transitions each, of the latest 1000",
        ),
        notes=("The published ratio is cut at 1 ± 1e-4, without PPO's minimum; the row has no clip.",),
    ),
    Published(
        "rsm_first_order_diffusion",
        DIFFUSION,
        f"{_RSM}, sd15_first_order: config/simple_res-nabladb_sd_hps_usez0_basesnr.yaml, "
        "trainer/ddptrainer.py (HPSv2.1)",
        frozen(**_NABLA, learning_rate=4e-3),
        row=frozen(**_NABLA_ROW, lookahead="terminal", weight="inverse_variance"),
        targets=ATTENTION_4,
        words=frozen(**_NABLA_WORDS, reward_scale="5e5 × the raw gradient"),
        notes=(
            "The published σ̃ of the weight is that of 51 steps instead of 50 by a slip (0.444 for 0.455 "
            "at first).",
        ),
    ),
    Published(
        "residual_nabla_db",
        DIFFUSION,
        f"∇-GFlowNet, arXiv 2412.07775, without its flow network as in {_RSM}, sd15_first_order: "
        "config/simple_res-nabladb_sd_hps.yaml, trainer/simple_resnabladbtrainer.py",
        frozen(**_NABLA, learning_rate=1e-3),
        row=frozen(
            **_NABLA_ROW, lookahead="next", weight="score", strength="next_clean_share_squared", anchor="ref"
        ),
        targets=ATTENTION_4,
        words=frozen(
            reward_scale="5e5 × the raw gradient; lzzcd001/nabla-gfn 1e3 to 1e4",
            old_weight="lzzcd001/nabla-gfn 1e3, HPSv2 1e2",
            prompts_per_update="on 4 GPUs; lzzcd001/nabla-gfn 512 on 8",
            train_fraction=f"{_NABLA_WORDS['train_fraction']}; lzzcd001/nabla-gfn 0.1",
        ),
        notes=(
            "lzzcd001/nabla-gfn trains on the rollout before the present one and steps AdamW twice an "
            "update.",
        ),
    ),
    Published(
        "sqdf",
        DIFFUSION,
        "SQDF, arXiv 2512.04559: Shin-woocheol/SQDF T2I/config, T2I/aesthetic.sh, alignprop_trainer.py, "
        "sd_pipeline.py",
        frozen(
            **_COMMON,
            lora_rank=4,
            lora_alpha=4.0,
            prompts_per_update=64,
            roots_per_prompt=1,
            kernel="ddim",
            initial_noise="own",
            learning_rate=1e-3,
            updates_per_rollout=1,
            train_fraction=0.02,
            discount=0.9,
            gradient_units="reward",
            gradient_quantile=1.0,
        ),
        row=frozen(steps="uniform", last_step=True, lookahead_network="base", train_unconditional=True),
        targets=ATTENTION_4,
        words=frozen(
            prompts_per_update="on 2 GPUs",
            kl_weight="α = 2 beside raw gradients, which is 4 here (1.5 and 3 without the consistency model)",
            lookahead_steps="one, of a frozen consistency model; without it the base model's clean estimate",
            replay_size="1024 trajectories, from which alone every update is drawn",
            reward_scale="1 × the raw gradient",
            train_fraction="one step of each trajectory",
        ),
        notes=(
            "α counts twice: the published KL is ‖Δμ‖²/σ² without the ½ of λ, so β = 2α here.",
            "Rows whose reward is not positive are left out there, with their KL.",
        ),
    ),
)
