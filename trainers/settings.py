"""The settings that say what is trained, how rollouts are made and how rows of a rollout become a loss.

They are the first part of ``trainers.config.RunConfig``, which adds those of optimiser, evaluation and
machine. Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def setting(default, help, *, group, low=None, high=None, choices=None):
    """Declare one field: its default, its sentence, its page section and its valid range."""
    metadata = {"help": help, "group": group, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class SubjectSettings:
    """What is trained, on what, towards what, and for how long."""

    model: str = setting(
        "tiny-flow",
        "Base model: a name of the model table, a folder of a diffusers pipeline, or a Hub id (owner/name).",
        group="what",
    )
    reward: str = setting(
        "shapes",
        "Reward to maximise, or a weighted mixture such as 'shapes:1,tiny_clip:0.2'; 'file.py:function' is "
        "one of your own.",
        group="what",
    )
    estimator: str = setting(
        "rsm_zeroth_order_flow", "Method: a row of the reward-score-matching table.", group="what"
    )
    prompts: str = setting(
        "shapes-train",
        "Training prompts: a built-in set, or a file: text, CSV, TSV, JSON, JSON lines or Parquet; the model "
        "and the reward choose the default.",
        group="what",
    )
    heldout_prompts: str = setting(
        "shapes-heldout",
        "Prompts of the before/after comparison, never trained on; chosen as the training prompts are.",
        group="what",
    )
    long_prompts: str = setting(
        "refuse",
        "Prompts with more tokens than the model reads: refuse tells them before anything loads, cut draws "
        "them from their beginning, as the pipeline does (rewards read all of it), skip leaves them out.",
        group="what",
        choices=("refuse", "cut", "skip"),
    )
    start_adapter: str = setting(
        "",
        "LoRA that training begins from: a run folder, or a LoRA of the same rank by diffusers, PEFT or "
        "kohya's scripts; empty begins with the base model.",
        group="what",
    )
    seed: int = setting(0, "Seed of every random draw of the run.", group="what", low=0, high=2**31 - 1)
    budget_seconds: float = setting(
        90.0,
        "Wall-clock budget of the whole process, both evaluations included.",
        group="what",
        low=5.0,
        high=7 * 86400.0,
    )
    max_updates: int = setting(
        0,
        "Stop after the rollout that reaches this many updates; 0 trains until the budget ends.",
        group="what",
        low=0,
        high=10**7,
    )
    resolution: int = setting(
        0, "Side of the square pictures in pixels; 0 is the model's own.", group="what", low=0, high=4096
    )


@dataclass(frozen=True)
class RolloutSettings(SubjectSettings):
    """How a rollout is sampled."""

    rollout_steps: int = setting(
        8, "Sampling steps T of a training rollout.", group="rollout", low=2, high=200
    )
    noise_level: float = setting(
        0.7,
        "Noise injected by stochastic steps: a of the flow SDE, eta of DDIM.",
        group="rollout",
        low=0.01,
        high=2.0,
    )
    kernel: str = setting(
        "auto",
        "Stochastic step of rollouts: flow_sde, flow_cps or flow_constant (DanceGRPO) for flows, ddim, "
        "pcpo or "
        "pcpo_low for diffusion; auto chooses.",
        group="rollout",
        choices=("auto", "flow_sde", "flow_cps", "flow_constant", "ddim", "pcpo", "pcpo_low"),
    )
    solver: str = setting(
        "euler",
        "Deterministic sampler of forward-process rollouts: euler (DDIM for diffusion) or dpm2, of second "
        "order.",
        group="rollout",
        choices=("euler", "dpm2"),
    )
    initial_noise: str = setting(
        "own",
        "Whether every sample of a prompt starts from its own noise or all from a shared one.",
        group="rollout",
        choices=("own", "shared"),
    )
    branches: tuple[int, ...] = setting(
        (8, 8),
        "Branches K drawn at each rollout step, first step first; missing steps count as 0.",
        group="rollout",
        low=0,
        high=256,
    )
    prompts_per_update: int = setting(
        24, "Prompts drawn for each rollout.", group="rollout", low=1, high=4096
    )
    group_size: int = setting(
        8,
        "Samples per prompt of methods without branches; their rewards are compared with each other.",
        group="rollout",
        low=2,
        high=1024,
    )
    roots_per_prompt: int = setting(
        1, "Independent root trajectories per prompt of branching methods.", group="rollout", low=1, high=256
    )
    train_fraction: float = setting(
        1.0,
        "Fraction of a trajectory's steps used for training (methods without branches).",
        group="rollout",
        low=0.01,
        high=1.0,
    )
    last_step: str = setting(
        "auto",
        "Whether methods that train the last noisy step of a trajectory do so: auto, or skip where few "
        "steps make it "
        "cover so much that its weight drowns all others.",
        group="rollout",
        choices=("auto", "skip"),
    )
    guidance_scale: float | None = setting(
        None,
        "Classifier-free guidance of rollout and evaluation, or the distilled scale where the model has one; "
        "empty uses the model's own value.",
        group="rollout",
        low=0.0,
        high=50.0,
    )


@dataclass(frozen=True)
class ObjectiveSettings(RolloutSettings):
    """How rewards and states of a rollout become a loss."""

    advantage: str = setting(
        "group",
        "How rewards become advantages: group-normalised, mean-subtracted, raw, exponentially "
        "tilted, or group-normalised within [-1, 1] (bounded).",
        group="estimator",
        choices=("group", "mean", "raw", "tilted", "bounded"),
    )
    advantage_clamp: float = setting(
        5.0, "Largest absolute advantage.", group="estimator", low=0.1, high=1000.0
    )
    advantage_std: str = setting(
        "group",
        "Whose standard deviation group-normalised advantages are divided by: the group's own, or that of "
        "the "
        "whole rollout.",
        group="estimator",
        choices=("group", "rollout"),
    )
    history_size: int = setting(
        32,
        "Latest rewards of a prompt that it is compared with once there are 16 (ppo); 0 compares the batch.",
        group="estimator",
        low=0,
        high=10000,
    )
    tilt: float = setting(
        0.1, "Temperature of the tilted advantage, in reward units.", group="estimator", low=1e-6, high=1e6
    )
    clip_range: float = setting(
        1e-3,
        "Trust region: the log-ratio at which a row stops pulling.",
        group="estimator",
        low=0.0,
        high=10.0,
    )
    kl_weight: float = setting(
        0.004, "Strength of the pull towards the base model (beta).", group="estimator", low=0.0, high=1e4
    )
    kl_scale: str = setting(
        "auto",
        "What kl_weight multiplies: the KL of a sampling step (transition), that times the step's length "
        "(rate), "
        "or the squared change of the output; auto is the method's own.",
        group="estimator",
        choices=("auto", "transition", "rate", "output"),
    )
    reward_scale: float = setting(
        1.0, "Strength of first-order reward guidance.", group="estimator", low=0.0, high=1e12
    )
    gradient_units: str = setting(
        "rms",
        "What reward_scale multiplies: gradients in units of their first root mean square, or as they are.",
        group="estimator",
        choices=("rms", "reward"),
    )
    old_weight: float = setting(
        0.0,
        "Weight of the pull towards the previous policy (W2), or towards the moving average (awm).",
        group="estimator",
        low=0.0,
        high=1e12,
    )

    lookahead_steps: int = setting(
        1,
        "Deterministic steps from a noisy state to the picture whose gradient is read (lookahead methods).",
        group="estimator",
        low=1,
        high=200,
    )
    discount: float = setting(
        1.0,
        "Discount of a reward gradient per remaining sampling step (SQDF).",
        group="estimator",
        low=0.0,
        high=1.0,
    )
    gradient_quantile: float = setting(
        1.0,
        "Reward gradients longer than this running quantile are shortened to it; 1 keeps all.",
        group="estimator",
        low=0.01,
        high=1.0,
    )
    replay_size: int = setting(
        0,
        "Earlier states kept for training again (methods that read the next state); 0 keeps none.",
        group="estimator",
        low=0,
        high=10**6,
    )
    replay_share: float = setting(0.5, "Replayed rows per new row.", group="estimator", low=0.0, high=10.0)
    forward_draws: int = setting(
        4,
        "Noise levels at which each finished picture is trained (forward-process methods).",
        group="estimator",
        low=1,
        high=200,
    )
    forward_levels: str = setting(
        "uniform",
        "How these levels are drawn: different steps of the rollout, one of each part of the schedule "
        "(stratified), or the noisier the likelier (noise).",
        group="estimator",
        choices=("uniform", "stratified", "noise"),
    )
    huber_power: float = setting(
        0.25,
        "Power of the denoising error in AWM's generalized Huber weighting.",
        group="estimator",
        low=0.01,
        high=1.0,
    )
    interval_weight: float = setting(
        0.0,
        "Weight of a step per unit of time in pcpo_flow (zeta); 0 works it out from the schedule.",
        group="estimator",
        low=0.0,
        high=1e6,
    )
    contrast_step: float = setting(
        1.0,
        "How far DiffusionNFT's better and worse policies lie from the old one.",
        group="estimator",
        low=1e-3,
        high=1e3,
    )
    old_decay_max: float = setting(
        0.0,
        "A moving average of the weights, which makes the rollouts (diffusion_nft, ram) or holds the "
        "policy (awm), "
        "keeps up to this share of itself per rollout; 0 is the trained policy itself.",
        group="estimator",
        low=0.0,
        high=0.9999,
    )
    old_decay_rate: float = setting(
        1e-3,
        "Growth per optimiser step of the share that the moving average keeps.",
        group="estimator",
        low=0.0,
        high=1.0,
    )
    old_decay_start: int = setting(
        0,
        "Optimiser steps before that share begins to grow.",
        group="estimator",
        low=0,
        high=10**6,
    )
    row: tuple[str, ...] = setting(
        (),
        "The custom estimator's row of the method table, as name=value parts such as order=first, "
        "weight=one, anchor=ref.",
        group="estimator",
    )

    anchor_fraction: float = setting(
        1.0,
        "States where nothing branched that carry the KL term, per branch of the rollout (methods that "
        "have such "
        "anchors); never the last step's.",
        group="estimator",
        low=0.0,
        high=1.0,
    )
