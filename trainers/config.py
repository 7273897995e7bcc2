"""What a run is asked to do: one frozen dataclass, one default and one help string per field.

The command line, the page and ``config.json`` all read this file, so nothing is typed twice. It
imports no torch: the page shows and checks settings without paying for the engine. Which values are
*good* for a model and a method is not decided here but in ``trainers.presets``.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from trainers.settings import ObjectiveSettings, setting

MAX_PROMPT_CHARACTERS = 1000


@dataclass(frozen=True)
class RunConfig(ObjectiveSettings):
    """Every setting of one fine-tuning run.

    Attributes are described by their ``help`` metadata (see ``field_help``). Shape letters used in the
    help texts: B rows, K branches, T sampling steps.
    """

    learning_rate: float = setting(1e-3, "Adam's step size.", group="optimiser", low=1e-8, high=1.0)
    weight_decay: float = setting(
        1e-4, "AdamW's decoupled weight decay.", group="optimiser", low=0.0, high=1.0
    )
    max_grad_norm: float = setting(
        1.0, "Gradients are rescaled to at most this norm.", group="optimiser", low=1e-6, high=1e6
    )
    updates_per_rollout: int = setting(
        1, "Optimiser steps taken on each rollout.", group="optimiser", low=1, high=64
    )
    ema_decay: float = setting(
        0.0,
        "Share that an exponential moving average of the weights keeps of itself; it is then what is "
        "evaluated and "
        "saved. 0 evaluates and saves the weights themselves.",
        group="optimiser",
        low=0.0,
        high=0.9999,
    )
    ema_every: int = setting(
        8, "Updates from one step of that average to the next.", group="optimiser", low=1, high=10000
    )
    micro_batch: int = setting(
        128,
        "Rows that pass through the network at once; never changes the result's mean.",
        group="optimiser",
        low=1,
        high=65536,
    )
    lora_rank: int = setting(16, "Rank of the LoRA.", group="optimiser", low=1, high=1024)
    lora_alpha: float = setting(
        32.0, "LoRA scale numerator (scale = alpha / rank).", group="optimiser", low=0.01, high=65536.0
    )

    eval_prompts: int = setting(
        128, "Held-out prompts of the before/after comparison.", group="evaluation", low=2, high=100000
    )
    eval_samples_per_prompt: int = setting(
        2, "Pictures per held-out prompt (at least 2, for diversity).", group="evaluation", low=2, high=64
    )
    eval_batch: int = setting(
        32, "Pictures sampled at once during evaluation.", group="evaluation", low=1, high=4096
    )
    eval_steps: int = setting(
        0,
        "Sampling steps of the comparison and of the looks during training; 0 is the model's own number.",
        group="evaluation",
        low=0,
        high=200,
    )
    probe_prompts: int = setting(
        8,
        "Held-out prompts that are drawn and scored now and then during training, two pictures each.",
        group="evaluation",
        low=1,
        high=1000,
    )
    probe_every: int = setting(
        0,
        "Updates from one look at these prompts to the next; 0 never looks.",
        group="evaluation",
        low=0,
        high=10**6,
    )
    others: str = setting(
        "",
        "Un-optimised rewards to report, separated by commas; empty chooses the model's usual ones.",
        group="evaluation",
    )

    server_url: str = setting(
        "",
        "Address of the reward 'server'; empty uses RSM_REWARD_SERVER.",
        group="endpoint",
    )
    server_protocol: str = setting(
        "pickle",
        "What the reward server speaks: pickle as Flow-GRPO's servers do, or json.",
        group="endpoint",
        choices=("pickle", "json"),
    )
    judge_url: str = setting(
        "",
        "Address of the judge up to and with /v1, OpenAI-compatible; empty uses RSM_JUDGE_URL.",
        group="endpoint",
    )
    judge_model: str = setting(
        "", "The judge's model, as its server names it; empty uses RSM_JUDGE_MODEL.", group="endpoint"
    )
    judge_question: str = setting(
        "Judge how well it shows everything that the caption asks for, and how good it looks.",
        "What the judge is asked about a picture.",
        group="endpoint",
    )
    judge_key_variable: str = setting(
        "",
        "Name of the environment variable that holds the judge's key; empty uses RSM_JUDGE_KEY_VARIABLE.",
        group="endpoint",
    )
    endpoint_timeout: float = setting(
        60.0, "Seconds that an endpoint may take to answer once.", group="endpoint", low=0.1, high=3600.0
    )
    endpoint_retries: int = setting(
        3, "Further attempts when an endpoint fails in a way that may pass.", group="endpoint", low=0, high=20
    )
    endpoint_parallel: int = setting(
        8, "Questions that the judge is asked at the same time.", group="endpoint", low=1, high=256
    )

    dtype: str = setting(
        "auto",
        "Precision of the network in rollouts and training; kernels and LoRA stay in float32.",
        group="machine",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    gradient_checkpointing: str = setting(
        "auto",
        "Compute parts of the network again in the backward pass instead of keeping them: less memory, a "
        "third more time in training. auto does so when a large model would not fit otherwise.",
        group="machine",
        choices=("auto", "off", "on"),
    )
    compile: str = setting(
        "off",
        "Compile the network's repeated blocks (regional): quicker after minutes of warm-up, for long runs.",
        group="machine",
        choices=("off", "regional"),
    )
    memory: str = setting(
        "auto",
        "GPU memory in GB that a large model is fitted into: rows at once, recomputed activations, text "
        "encoders kept off the GPU. auto asks the GPU; the effective batch stays.",
        group="machine",
        choices=("auto", "12", "16", "24", "48", "80"),
    )
    decoder: str = setting(
        "own",
        "Decoder of training pictures: the model's own, or the tiny autoencoder of the same latents, which "
        "takes a fraction of the memory when reward gradients pass through it.",
        group="machine",
        choices=("own", "tiny"),
    )
    device: str = setting("auto", "Where to run: auto, cpu, cuda or cuda:N.", group="machine")
    threads: int = setting(0, "CPU threads; 0 uses one per core.", group="machine", low=0, high=1024)
    checkpoint_seconds: float = setting(
        5.0, "Seconds between resumable checkpoints.", group="machine", low=0.0, high=86400.0
    )

    def to_json(self) -> str:
        """Return the settings as indented JSON, ready for ``config.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


FIELDS: dict[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(RunConfig)}


def field_help(name: str) -> str:
    """Return the one help sentence of a field."""
    return FIELDS[name].metadata["help"]
