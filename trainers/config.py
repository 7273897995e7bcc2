"""What a run is asked to do: one frozen dataclass, one default and one help string per field.

The command line, the page and ``config.json`` all read this file, so nothing is typed twice. It
imports no torch: the page shows and checks settings without paying for the engine. Which values are
*good* for a model and a method is not decided here but in ``trainers.presets``.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

MAX_PROMPT_CHARACTERS = 1000


def _setting(default, help, *, group, low=None, high=None, choices=None):
    """Declare one field: its default, its sentence, its page section and its valid range."""
    metadata = {"help": help, "group": group, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class RunConfig:
    """Every setting of one fine-tuning run.

    Attributes are described by their ``help`` metadata (see ``field_help``). Shape letters used in the
    help texts: B rows, K branches, T sampling steps.
    """

    model: str = _setting(
        "tiny-flow",
        "Base model: a name of the model table, a folder of a diffusers pipeline, or a Hub id (owner/name).",
        group="what",
    )
    reward: str = _setting(
        "shapes",
        "Reward to maximise, or a weighted mixture such as 'shapes:1,tiny_clip:0.2'; 'file.py:function' is "
        "one of your own.",
        group="what",
    )
    estimator: str = _setting(
        "rsm_zeroth_order_flow", "Method: a row of the reward-score-matching table.", group="what"
    )
    prompts: str = _setting(
        "shapes-train",
        "Training prompts: a built-in set or a text file; the model and the reward choose the default.",
        group="what",
    )
    heldout_prompts: str = _setting(
        "shapes-heldout",
        "Prompts of the before/after comparison, never trained on; chosen as the training prompts are.",
        group="what",
    )
    start_adapter: str = _setting(
        "",
        "LoRA that training begins from: a run folder or a folder with a diffusers LoRA of the same rank and "
        "alpha; empty begins with the base model.",
        group="what",
    )
    seed: int = _setting(0, "Seed of every random draw of the run.", group="what", low=0, high=2**31 - 1)
    budget_seconds: float = _setting(
        90.0,
        "Wall-clock budget of the whole process, both evaluations included.",
        group="what",
        low=5.0,
        high=7 * 86400.0,
    )
    max_updates: int = _setting(
        0, "Stop after this many updates; 0 trains until the budget ends.", group="what", low=0, high=10**7
    )
    resolution: int = _setting(
        0, "Side of the square pictures in pixels; 0 is the model's own.", group="what", low=0, high=4096
    )

    rollout_steps: int = _setting(
        8, "Sampling steps T of a training rollout.", group="rollout", low=2, high=200
    )
    noise_level: float = _setting(
        0.7,
        "Noise injected by stochastic steps: a of the flow SDE, eta of DDIM.",
        group="rollout",
        low=0.01,
        high=2.0,
    )
    kernel: str = _setting(
        "auto",
        "Stochastic step of rollouts: flow_sde or flow_cps for flows, ddim for diffusion; auto chooses.",
        group="rollout",
        choices=("auto", "flow_sde", "flow_cps", "ddim"),
    )
    branches: tuple[int, ...] = _setting(
        (8, 8),
        "Branches K drawn at each rollout step, first step first; missing steps count as 0.",
        group="rollout",
        low=0,
        high=256,
    )
    prompts_per_update: int = _setting(
        24, "Prompts drawn for each rollout.", group="rollout", low=1, high=4096
    )
    group_size: int = _setting(
        8,
        "Samples per prompt of methods without branches; their rewards are compared with each other.",
        group="rollout",
        low=2,
        high=1024,
    )
    roots_per_prompt: int = _setting(
        1, "Independent root trajectories per prompt of branching methods.", group="rollout", low=1, high=256
    )
    train_fraction: float = _setting(
        1.0,
        "Fraction of a trajectory's steps used for training (methods without branches).",
        group="rollout",
        low=0.01,
        high=1.0,
    )
    guidance_scale: float | None = _setting(
        None,
        "Classifier-free guidance of rollout and evaluation, or the distilled scale where the model has one; "
        "empty uses the model's own value.",
        group="rollout",
        low=0.0,
        high=50.0,
    )

    advantage: str = _setting(
        "group",
        "How rewards become advantages: group-normalised, mean-subtracted, raw, exponentially "
        "tilted, or group-normalised within [-1, 1] (bounded).",
        group="estimator",
        choices=("group", "mean", "raw", "tilted", "bounded"),
    )
    advantage_clamp: float = _setting(
        5.0, "Largest absolute advantage.", group="estimator", low=0.1, high=1000.0
    )
    tilt: float = _setting(
        0.1, "Temperature of the tilted advantage, in reward units.", group="estimator", low=1e-6, high=1e6
    )
    clip_range: float = _setting(
        1e-3,
        "Trust region: the log-ratio at which a row stops pulling.",
        group="estimator",
        low=0.0,
        high=10.0,
    )
    kl_weight: float = _setting(
        0.004, "Strength of the pull towards the base model (beta).", group="estimator", low=0.0, high=1e4
    )
    reward_scale: float = _setting(
        1.0, "Strength of first-order reward guidance.", group="estimator", low=0.0, high=1e12
    )
    gradient_units: str = _setting(
        "rms",
        "What reward_scale multiplies: gradients in units of their first root mean square, or as they are.",
        group="estimator",
        choices=("rms", "reward"),
    )
    old_weight: float = _setting(
        0.0,
        "Weight of the pull towards the previous policy (W2) in first-order diffusion.",
        group="estimator",
        low=0.0,
        high=1e12,
    )

    lookahead_steps: int = _setting(
        1,
        "Deterministic steps from a noisy state to the picture whose gradient is read (lookahead methods).",
        group="estimator",
        low=1,
        high=200,
    )
    discount: float = _setting(
        1.0,
        "Discount of a reward gradient per remaining sampling step (SQDF).",
        group="estimator",
        low=0.0,
        high=1.0,
    )
    gradient_quantile: float = _setting(
        1.0,
        "Reward gradients longer than this running quantile are shortened to it; 1 keeps all.",
        group="estimator",
        low=0.01,
        high=1.0,
    )
    replay_size: int = _setting(
        0,
        "Earlier states kept for training again (methods that read the next state); 0 keeps none.",
        group="estimator",
        low=0,
        high=10**6,
    )
    replay_share: float = _setting(0.5, "Replayed rows per new row.", group="estimator", low=0.0, high=10.0)
    forward_draws: int = _setting(
        4,
        "Noise levels at which each finished picture is trained (forward-process methods).",
        group="estimator",
        low=1,
        high=200,
    )
    contrast_step: float = _setting(
        1.0,
        "How far DiffusionNFT's better and worse policies lie from the old one.",
        group="estimator",
        low=1e-3,
        high=1e3,
    )
    old_decay_max: float = _setting(
        0.0,
        "The rollout policy follows the trained one as a moving average that keeps up to this share of "
        "itself per rollout; 0 is the trained policy itself.",
        group="estimator",
        low=0.0,
        high=0.9999,
    )
    old_decay_rate: float = _setting(
        1e-3,
        "Growth per rollout of the share that the moving average keeps.",
        group="estimator",
        low=0.0,
        high=1.0,
    )
    row: tuple[str, ...] = _setting(
        (),
        "The custom estimator's row of the method table, as name=value parts such as order=first, "
        "weight=one, anchor=ref.",
        group="estimator",
    )

    anchor_fraction: float = _setting(
        1.0,
        "Share of the un-branched steps' rows that carry the KL term.",
        group="estimator",
        low=0.0,
        high=1.0,
    )

    learning_rate: float = _setting(1e-3, "Adam's step size.", group="optimiser", low=1e-8, high=1.0)
    weight_decay: float = _setting(
        1e-4, "AdamW's decoupled weight decay.", group="optimiser", low=0.0, high=1.0
    )
    max_grad_norm: float = _setting(
        1.0, "Gradients are rescaled to at most this norm.", group="optimiser", low=1e-6, high=1e6
    )
    updates_per_rollout: int = _setting(
        1, "Optimiser steps taken on each rollout.", group="optimiser", low=1, high=64
    )
    micro_batch: int = _setting(
        128,
        "Rows that pass through the network at once; never changes the result's mean.",
        group="optimiser",
        low=1,
        high=65536,
    )
    lora_rank: int = _setting(16, "Rank of the LoRA.", group="optimiser", low=1, high=1024)
    lora_alpha: float = _setting(
        32.0, "LoRA scale numerator (scale = alpha / rank).", group="optimiser", low=0.01, high=65536.0
    )

    eval_prompts: int = _setting(
        128, "Held-out prompts of the before/after comparison.", group="evaluation", low=2, high=100000
    )
    eval_samples_per_prompt: int = _setting(
        2, "Pictures per held-out prompt (at least 2, for diversity).", group="evaluation", low=2, high=64
    )
    eval_batch: int = _setting(
        32, "Pictures sampled at once during evaluation.", group="evaluation", low=1, high=4096
    )
    probe_prompts: int = _setting(
        8,
        "Held-out prompts that are drawn and scored now and then during training, two pictures each.",
        group="evaluation",
        low=1,
        high=1000,
    )
    probe_every: int = _setting(
        0,
        "Updates from one look at these prompts to the next; 0 never looks.",
        group="evaluation",
        low=0,
        high=10**6,
    )
    others: str = _setting(
        "",
        "Un-optimised rewards to report, separated by commas; empty chooses the model's usual ones.",
        group="evaluation",
    )

    server_url: str = _setting(
        "",
        "Address of the reward 'server'; empty uses RSM_REWARD_SERVER.",
        group="endpoint",
    )
    server_protocol: str = _setting(
        "pickle",
        "What the reward server speaks: pickle as Flow-GRPO's servers do, or json.",
        group="endpoint",
        choices=("pickle", "json"),
    )
    judge_url: str = _setting(
        "",
        "Address of the judge up to and with /v1, OpenAI-compatible; empty uses RSM_JUDGE_URL.",
        group="endpoint",
    )
    judge_model: str = _setting(
        "", "The judge's model, as its server names it; empty uses RSM_JUDGE_MODEL.", group="endpoint"
    )
    judge_question: str = _setting(
        "Judge how well it shows everything that the caption asks for, and how good it looks.",
        "What the judge is asked about a picture.",
        group="endpoint",
    )
    judge_key_variable: str = _setting(
        "",
        "Name of the environment variable that holds the judge's key; empty uses RSM_JUDGE_KEY_VARIABLE.",
        group="endpoint",
    )
    endpoint_timeout: float = _setting(
        60.0, "Seconds that an endpoint may take to answer once.", group="endpoint", low=0.1, high=3600.0
    )
    endpoint_retries: int = _setting(
        3, "Further attempts when an endpoint fails in a way that may pass.", group="endpoint", low=0, high=20
    )
    endpoint_parallel: int = _setting(
        8, "Questions that the judge is asked at the same time.", group="endpoint", low=1, high=256
    )

    dtype: str = _setting(
        "auto",
        "Precision of the network in rollouts and training; kernels and LoRA stay in float32.",
        group="machine",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    gradient_checkpointing: str = _setting(
        "auto",
        "Compute parts of the network again in the backward pass instead of keeping them: less memory, a "
        "third more time in training. auto does so when a large model would not fit otherwise.",
        group="machine",
        choices=("auto", "off", "on"),
    )
    compile: str = _setting(
        "off",
        "Compile the network's repeated blocks (regional): quicker after minutes of warm-up, for long runs.",
        group="machine",
        choices=("off", "regional"),
    )
    memory: str = _setting(
        "auto",
        "GPU memory in GB that a large model is fitted into: rows at once, recomputed activations, text "
        "encoders kept off the GPU. auto asks the GPU; the effective batch stays.",
        group="machine",
        choices=("auto", "12", "16", "24", "48", "80"),
    )
    decoder: str = _setting(
        "own",
        "Decoder of training pictures: the model's own, or the tiny autoencoder of the same latents, which "
        "takes a fraction of the memory when reward gradients pass through it.",
        group="machine",
        choices=("own", "tiny"),
    )
    device: str = _setting("auto", "Where to run: auto, cpu, cuda or cuda:N.", group="machine")
    threads: int = _setting(0, "CPU threads; 0 uses one per core.", group="machine", low=0, high=1024)
    checkpoint_seconds: float = _setting(
        5.0, "Seconds between resumable checkpoints.", group="machine", low=0.0, high=86400.0
    )

    def to_json(self) -> str:
        """Return the settings as indented JSON, ready for ``config.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


FIELDS: dict[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(RunConfig)}


def field_help(name: str) -> str:
    """Return the one help sentence of a field."""
    return FIELDS[name].metadata["help"]
