"""Why our defaults differ from the published ones, for docs/DEFAULTS.md. Torch-free.

A reason stands once for some rows, a scope and some settings. The scope is a model, ``EMBEDDED``, a family or
``*``; the most specific scope counts, then the row (``differences.keys``). A reason cites the entry of
docs/LOG.md that measured it, or says "not measured". What several rows share has a label in ``SHARED``; what
an embedded model has for every row is told once, in a table of its own. A test wants a reason for every
difference, and a difference for every reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainers.deviations_embedded import EMBEDDED_REASONS

SHARED: Mapping[str, str] = {
    "one GPU": "16 prompts are what RSM's program takes on 2 GPUs for Flow-GRPO, TempFlow-GRPO, PCPO and its "
    "own row; the published number fills 4 to 48. Not measured. `--set prompts_per_update=…` restores it.",
    "one of several": "What one of the published run's GPUs draws. Not measured.",
    "units": "A gradient is divided by its first root mean square, so that `reward_scale` is the size of the "
    "guidance in units of the output, whatever the reward; the published factor has no counterpart. Not "
    "measured at full size.",
    "LoRA": "Only LoRAs are trained here, with the rank and rate that RSM's programs use on this model where "
    "the paper trains all weights. Not measured.",
    "shortened": "Reward gradients have heavy tails: z 5.1 with 0.5, 4.0 with 0.8, 2.3 without, on tiny-flow "
    "with the first tiny-clip (2026-11-23, gradients that can be followed).",
    "taken over": "Taken over from the RSM row of the model, where it was measured; not measured for this "
    "row.",
    "seldom looks": "No part of the method: updates are quick, and looks at held-out prompts are to stay a "
    "small share.",
    "other family": "Settings of the row, as on its own family; not measured on this one.",
    "no paper": "A tree as on flows: no diffusion program of it was read. Not measured.",
    "four steps": "Distilled for four steps; of published branches those of the first three remain. Not "
    "measured.",
    "own guidance": "The published scale is Stable Diffusion 3's; other models are guided as in a normal "
    "call. Not measured.",
    "plain gradient": "The row is the plain policy gradient beside `grpo`, to which it is equal at one "
    "update a rollout (2026-11-23, every row compared), so it takes the settings of the other rows of the "
    "model, and the default of `kl_weight`. Not measured at full size.",
    "Flow-GRPO's": "One row serves Flow-GRPO and DanceGRPO; what no setting changes is Flow-GRPO's on both "
    "families. Not measured.",
}

_WHY: tuple[tuple[str, str, str, str], ...] = (
    *EMBEDDED_REASONS,
    # The reference models.
    ("*", "sd35-medium", "prompts_per_update", "one GPU"),
    ("grpo rsm_first_order_diffusion residual_nabla_db", "sd15", "prompts_per_update", "one of several"),
    ("branch_grpo grpo", "*", "lora_rank", "LoRA"),
    ("branch_grpo", "sd35-medium", "learning_rate", "LoRA"),
    ("grpo", "sd15", "learning_rate", "LoRA"),
    (
        "branch_grpo",
        "flow",
        "updates_per_rollout",
        "Two, as for the rows it is compared with: the published steps are of 12 edges, and their size is "
        "left to AdamW. Not measured.",
    ),
    (
        "branch_grpo",
        "sd35-medium",
        "guidance_scale",
        "FLUX's distilled scale means nothing to another model; this is its normal one.",
    ),
    ("branch_grpo", "sd15", "branches rollout_steps clip_range", "no paper"),
    (
        "vgg_flow rsm_first_order_flow",
        "sd35-medium",
        "lora_targets",
        "Targets belong to the model here, not to the row: both streams, as for all other rows. Not "
        "measured.",
    ),
    (
        "vgg_flow rsm_first_order_flow",
        "sd35-medium",
        "resolution",
        "All rows train the model at one size, a quarter of the pixels. Not measured.",
    ),
    (
        "vgg_flow rsm_first_order_flow",
        "sd35-medium",
        "decoder",
        "The decoder that pictures are drawn with in the end. The tiny one keeps a tenth of the memory "
        "(2026-11-23, what one row of a large model keeps in memory; counted, not run): `--set "
        "decoder=tiny`.",
    ),
    (
        "vgg_flow",
        "sd35-medium",
        "gradient_quantile",
        "The paper's device, the running quantile; a bound of 1.0 says nothing of gradients in units of "
        "their root mean square. Not measured at full size.",
    ),
    (
        "rsm_first_order_flow",
        "sd35-medium",
        "gradient_quantile",
        "Whole gradients: a bound of 1.0 says nothing of gradients in units of their root mean square. Not "
        "measured at full size.",
    ),
    (
        "vgg_flow rsm_first_order_flow rsm_first_order_diffusion residual_nabla_db sqdf",
        "*",
        "gradient_units",
        "units",
    ),
    ("vgg_flow rsm_first_order_flow", "sd35-medium", "reward_scale", "units"),
    ("rsm_first_order_diffusion residual_nabla_db sqdf", "sd15", "reward_scale", "units"),
    (
        "awm",
        "*",
        "solver",
        "SA-Solver is not offered; `dpm2` is the nearest to it, of second order too but without noise. Not "
        "measured.",
    ),
    (
        "ram",
        "sd35-medium",
        "guidance_scale",
        "The model's own scale, in training too: rollouts with guidance and training without it are not "
        "offered. Not measured.",
    ),
    ("ram", "*", "advantage_clamp", "As for all rows; whether five are reached was not measured."),
    ("ram", "sd35-medium", "ema_decay", "The decay is not known, so the weights themselves are saved."),
    ("grpo", "diffusion", "std_epsilon unbiased_std drops_silent", "Flow-GRPO's"),
    (
        "rsm_zeroth_order_diffusion pcpo",
        "diffusion",
        "initial_noise",
        "Own for every sample; noise shared over prompts is not offered. Not measured.",
    ),
    (
        "grpo",
        "diffusion",
        "initial_noise",
        "Shared by the samples of a prompt; noise shared over prompts is not offered. Not measured.",
    ),
    (
        "branch_grpo",
        "flow",
        "initial_noise",
        "A tree has one root, so a prompt's leaves begin alike; noise shared over prompts is not offered. "
        "Not measured.",
    ),
    (
        "ppo",
        "sd15",
        "prompts_per_update group_size",
        "256 samples as well, but 8 of each prompt: `group_size` begins at 2. Not measured.",
    ),
    (
        "reinforce_kl",
        "diffusion",
        "advantage kl_weight max_grad_norm updates_per_rollout weight_decay",
        "plain gradient",
    ),
    (
        "reinforce_kl",
        "sd15",
        "lora_rank lora_alpha learning_rate guidance_scale prompts_per_update",
        "plain gradient",
    ),
    (
        "sqdf",
        "diffusion",
        "kl_weight",
        "Beside gradients in units of their root mean square α has no counterpart. In the laboratory 1.3 "
        "reaches the tilted law without discount (2026-11-23, every row compared); 0.1 was not measured on "
        "pictures.",
    ),
    (
        "sqdf",
        "diffusion",
        "lookahead_steps",
        "The variant without a consistency model, which would be another 0.9 B to load. Not measured.",
    ),
    ("sqdf", "diffusion", "replay_size", "The variant without a buffer. Not measured."),
    # Models without a column, and families for which no paper has the row.
    ("*", "flux-schnell", "rollout_steps branches", "four steps"),
    ("awm diffusion_nft vgg_flow rsm_first_order_flow", "flow", "guidance_scale", "own guidance"),
    ("pcpo_flow", "flow", "interval_weight", "ζ worked out from the model's own schedule."),
    ("tempflow_grpo awm ram", "diffusion", "kl_weight", "other family"),
    ("grpo_guard", "diffusion", "clip_range", "other family"),
    (
        "diffusion_nft",
        "diffusion",
        "contrast_step updates_per_rollout old_decay_rate old_decay_max old_decay_start",
        "other family",
    ),
)

REASONS: Mapping[tuple[str, str, str], str] = {
    (row, scope, name): why
    for rows, scope, names, why in _WHY
    for row in rows.split()
    for name in names.split()
}
