"""Why defaults of embedded models differ from the published ones; see ``trainers.deviations``. Torch-free."""

from __future__ import annotations

EMBEDDED = "embedded"

EMBEDDED_REASONS: tuple[tuple[str, str, str, str], ...] = (
    # What embedded models begin with in every row.
    (
        "*",
        "tiny-flow",
        "lora_targets",
        "tiny-flow gains 0.076 with a LoRA of its feed-forward layers and 0.044 without (2026-11-23, a "
        "machine without bfloat16).",
    ),
    ("*", "tiny-diffusion", "lora_targets", "tiny-diffusion: its convolutions too; not measured without."),
    ("*", "embedded", "resolution", "The size of their pictures."),
    (
        "*",
        "embedded",
        "rollout_steps",
        "tiny-flow: all 6 steps are useful, 4 gain less, and 12 draw no better single objects (2026-11-23, "
        "pre-training of the tiny models, a machine without bfloat16). tiny-diffusion: other numbers than 8 "
        "were not measured.",
    ),
    (
        "*",
        "embedded",
        "prompts_per_update group_size",
        "A rollout is to take some 6 s on two cores. For `rsm_zeroth_order_flow` 24 prompts × 16 branches "
        "carry more signal than 48 × 8 or 12 × 32 (2026-11-23, a weak pull); other rows take 24 × 8 "
        "pictures, and no other split of theirs was measured.",
    ),
    (
        "*",
        "embedded",
        "guidance_scale",
        "They are called without guidance (their `call.json`): it doubles the cost, and tiny-flow draws so "
        "well with it (0.69 instead of 0.49 exactly right, its card) that little is left to learn.",
    ),
    (
        "*",
        "tiny-flow",
        "clip_range",
        "tiny-flow: 1e-4 was not measured. With 1e-3 `rsm_zeroth_order_flow` gained +0.092 with two updates "
        "a rollout and +0.079 with one, where no clip acts (± 0.014 each; `shapes`, `kl_weight` 0.0156, seed "
        "2; 2026-11-30).",
    ),
    (
        "*",
        "tiny-diffusion",
        "last_step",
        "tiny-diffusion's last noisy step of 8 has |k/σ| = 13.6, the others 1.1 to 1.7, and the last of "
        "Stable Diffusion 1.5's 50 steps 1.1. With it `rsm_first_order_diffusion` gained +0.003 (z 1.3; with "
        "one update a rollout +0.000, z 0.2) on `tiny_clip` after 18,000 evaluations, without it +0.016 (z "
        "4.8), seed 2 (2026-11-30). Not measured for other rows.",
    ),
    (
        "*",
        "embedded",
        "learning_rate",
        "tiny-flow: 1e-3 gained 0.076 and 7e-4 0.051; without a LoRA of the feed-forward layers 2e-3 gained "
        "0.055 and 1e-3 0.044, with less diversity (2026-11-23, a machine without bfloat16); 3e-3 forgets as "
        "fast as it learns (2026-11-23, tuning the embedded defaults). Measured with the RSM rows at one "
        "update a rollout, and taken by all; on tiny-diffusion measured for `rsm_zeroth_order_diffusion` "
        "alone.",
    ),
    ("*", "tiny-flow", "weight_decay max_grad_norm", "Not measured."),
    (
        "*",
        "embedded",
        "ema_decay",
        "A run makes some 20 updates, of which an average every eighth would see two. The average of the "
        "later half of the weights gained no more than the weights (2026-11-23, a weak pull).",
    ),
    (
        "*",
        "embedded",
        "lora_rank lora_alpha",
        "Networks of 5 M parameters instead of 0.9 to 2.2 B; no other rank was measured.",
    ),
    ("*", "embedded", "decoder", "Their own is small; there is no other of their latents."),
    # Embedded models, one row.
    ("*", "embedded", "probe_every", "seldom looks"),
    (
        "rsm_zeroth_order_flow",
        "tiny-flow",
        "branches",
        "16 branches at the second of 6 steps give 1.8 times the squared signal per second of 8, 8; 4, 4 and "
        "6, 6, 6 give less still (2026-11-23, gradients that can be followed).",
    ),
    (
        "rsm_zeroth_order_flow tempflow_grpo",
        "tiny-flow",
        "roots_per_prompt",
        "More prompts instead of more roots of one; not measured.",
    ),
    (
        "rsm_zeroth_order_flow",
        "tiny-flow",
        "kl_weight",
        "Pixels: 0.01 gains +0.588 and loses 0.51 of `shapes`, 2 gains +0.440 and loses 0.19, 10 gains "
        "+0.217 and loses 0.01 (`colorfulness`, 18,000 evaluations, seed 0). After 60,000, 14 gains +0.176 "
        "and 20 +0.126, and `shapes` rises by 0.02 and 0.03; other statistics cost 0.01 to 0.09 of it with "
        "14 (20,000 evaluations). GenEval: the published KL gained +0.090 with a drift of 0.28, 0.0156 "
        "+0.092 with 0.21, 0.05 without anchors +0.079 with 0.66, and the setting for taste +0.042 with 0.99 "
        "(± 0.014 to 0.017; `shapes`, 54,000 evaluations, 320 pictures, seed 2; both 2026-11-30).",
    ),
    (
        "tempflow_grpo",
        "embedded",
        "branches",
        "Every step but the last, as published, of fewer steps.",
    ),
    (
        "tempflow_grpo",
        "embedded",
        "prompts_per_update",
        "12 × 30 branches on tiny-flow and 8 × 42 on tiny-diffusion, about as many pictures as the 24 × 16 "
        "of the RSM rows. Not measured.",
    ),
    (
        "branch_grpo",
        "embedded",
        "branches prompts_per_update",
        "12 trees of 16 leaves, as many pictures as 24 × 8; splits so early because there are few steps. Not "
        "measured.",
    ),
    (
        "branch_grpo",
        "tiny-flow",
        "kernel noise_level",
        "The noise of the other rows of the model; not measured.",
    ),
    (
        "grpo_guard",
        "tiny-flow",
        "clip_range",
        "4e-6 gained +0.055 and 1e-3 +0.136, with which the clip still acts, on 8 % of branches "
        "(`colorfulness`, 6,000 evaluations, seed 0; 2026-11-30).",
    ),
    (
        "grpo_guard",
        "tiny-diffusion",
        "clip_range",
        "4e-6 gained +0.064 and 1e-4, which all rows of the model have, +0.066 (`colorfulness`, 6,000 "
        "evaluations, seed 0; 2026-11-30).",
    ),
    (
        "rsm_zeroth_order_diffusion",
        "tiny-diffusion",
        "clip_range",
        "The published clip is for the published rate. With 7e-4 it cuts off half of the branches of a "
        "rollout's second update and gained +0.0184, +0.0077, +0.0151 on `shapes`; 1e-3 cuts off 3 of 10 "
        "and gained +0.0229, +0.0151, +0.0184 (40,000 evaluations, 640 pictures, seeds 0, 1, 2; 2026-11-30).",
    ),
    ("pcpo_flow", "tiny-flow", "interval_weight", "ζ of another schedule; 0 works it out from this one."),
    (
        "rsm_first_order_flow rsm_first_order_diffusion",
        "embedded",
        "prompts_per_update",
        "32: with 64 and half the steps z 3.9 instead of 5.1 (2026-11-23, gradients that can be followed).",
    ),
    (
        "rsm_first_order_flow",
        "tiny-flow",
        "reward_scale",
        "z 5.1 with 15, 3.4 with 1, 3.6 with 4, 3.0 with 40 after 45 updates with the first tiny-clip "
        "(2026-11-23, tuning the embedded defaults).",
    ),
    (
        "rsm_first_order_diffusion",
        "tiny-diffusion",
        "reward_scale",
        "z 7.5 with 10, 4.8 with 40 after 40 updates, 3.05 with 1 after 73 (2026-11-23, a weak pull), at one "
        "update a rollout and without W2.",
    ),
    ("vgg_flow residual_nabla_db sqdf", "embedded", "reward_scale gradient_quantile", "taken over"),
    (
        "vgg_flow",
        "tiny-flow",
        "reward_scale",
        "Twice that of `rsm_first_order_flow`, as published; not measured for this row.",
    ),
    ("rsm_first_order_flow rsm_first_order_diffusion", "embedded", "gradient_quantile", "shortened"),
    (
        "rsm_first_order_diffusion",
        "tiny-diffusion",
        "train_fraction",
        "8 steps are too few to leave most of them out. 0.6 was used in tuning (2026-11-23, tuning the "
        "embedded defaults); other shares were not measured.",
    ),
    (
        "residual_nabla_db sqdf",
        "tiny-diffusion",
        "train_fraction",
        "8 steps are too few to leave most of them out. Not measured.",
    ),
    (
        "rsm_zeroth_order_diffusion",
        "tiny-diffusion",
        "branches",
        "16 branches at the third of 8 steps have the largest signal of seven schedules (2026-11-23, a weak "
        "pull).",
    ),
    (
        "rsm_zeroth_order_diffusion",
        "tiny-diffusion",
        "learning_rate",
        "7e-4 ended at z 3.8, 1e-3 at z 3.6, 2e-3 at 2.2 with other branches (2026-11-23, a weak pull), at "
        "one update a rollout and with another KL.",
    ),
    (
        "rsm_zeroth_order_diffusion",
        "tiny-diffusion",
        "kernel",
        "`pcpo` gained +0.001 and `ddim` +0.008, within the error (`shapes`, 24,000 evaluations, seed 2; "
        "2026-11-30).",
    ),
    ("pcpo", "tiny-diffusion", "kernel", "taken over"),
    (
        "rsm_zeroth_order_diffusion",
        "tiny-diffusion",
        "eval_samples_per_prompt",
        "No part of the method: the base is good, so there is little to gain and much to average; 960 "
        "pictures gave z 5.0 to 5.4 with the settings of that day (2026-11-23, a weak pull).",
    ),
)
