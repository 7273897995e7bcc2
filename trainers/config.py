"""What a run is asked to do: one frozen dataclass, one default and one help string per field.

The command line, the page and ``config.json`` all read this file, so nothing is typed twice. It
imports no torch: the page shows and checks settings without paying for the engine. Which values are
*good* for a model and a method is not decided here but in ``trainers.presets``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field

from trainers.errors import InputError

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

    model: str = _setting("tiny-flow", "Base model: a name from the model table.", group="what")
    reward: str = _setting(
        "shapes", "Reward to maximise, or a weighted mixture such as 'shapes:1,tiny_clip:0.2'.", group="what"
    )
    estimator: str = _setting(
        "rsm_zeroth_order_flow", "Method: a row of the reward-score-matching table.", group="what"
    )
    prompts: str = _setting("shapes-train", "Training prompts: a built-in set or a text file.", group="what")
    heldout_prompts: str = _setting(
        "shapes-heldout", "Prompts of the before/after comparison, never trained on.", group="what"
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
        "Classifier-free guidance of rollout and evaluation; empty uses the model's own value.",
        group="rollout",
        low=0.0,
        high=50.0,
    )

    advantage: str = _setting(
        "group",
        "How rewards become advantages: group-normalised, mean-subtracted, raw or exponentially tilted.",
        group="estimator",
        choices=("group", "mean", "raw", "tilted"),
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
    old_weight: float = _setting(
        0.0,
        "Weight of the pull towards the previous policy (W2) in first-order diffusion.",
        group="estimator",
        low=0.0,
        high=1e12,
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
    others: str = _setting(
        "",
        "Un-optimised rewards to report, separated by commas; empty chooses the model's usual ones.",
        group="evaluation",
    )

    dtype: str = _setting(
        "auto",
        "Precision of the network in rollouts and training; kernels and LoRA stay in float32.",
        group="machine",
        choices=("auto", "float32", "bfloat16", "float16"),
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
_TYPES = typing.get_type_hints(RunConfig)


def field_help(name: str) -> str:
    """Return the one help sentence of a field."""
    return FIELDS[name].metadata["help"]


def coerce(name: str, value: object) -> object:
    """Turn text (or JSON) into the type of a field.

    Args:
        name: A field of ``RunConfig``.
        value: Text as typed by a person, or a JSON value.

    Returns:
        The value in the field's type.

    Raises:
        InputError: The name is unknown or the text is not of the field's type.
    """
    if name not in FIELDS:
        from trainers.registry import nearest

        raise InputError(f"Unknown setting '{name}'. {nearest(name, FIELDS)}")
    kind = _TYPES[name]
    try:
        return _coerce(kind, value)
    except (TypeError, ValueError, OverflowError):
        expected = _KIND_WORDS.get(kind, "a number or empty")
        raise InputError(f"'{name}' must be {expected}, not {value!r}.") from None


def coerce_all(values: typing.Mapping[str, object]) -> tuple[list[str], dict[str, object]]:
    """Return a sentence for each value that ``coerce`` refuses, and the values it accepts."""
    found: list[str] = []
    clean: dict[str, object] = {}
    for name, value in values.items():
        try:
            clean[name] = coerce(name, value)
        except InputError as error:
            found += error.problems
    return found, clean


_KIND_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple[int, ...]: "whole numbers separated by commas",
}


def _coerce(kind, value):
    if kind is str:
        return str(value)
    if kind is int:
        if isinstance(value, bool) or float(value) != int(float(value)):
            raise ValueError
        return int(value) if isinstance(value, int) else int(float(value))
    if kind is float:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    if kind == tuple[int, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(_coerce(int, part) for part in parts if str(part).strip() != "")
    if isinstance(kind, types.UnionType):
        return None if value in (None, "", "none", "None") else _coerce(float, value)
    raise TypeError(kind)


def problems(config: RunConfig) -> list[str]:
    """List every field that is out of range, in sentences; empty when all are fine."""
    found = []
    for name, info in FIELDS.items():
        found += _field_problems(name, getattr(config, name), info.metadata)
    if not any(config.branches):
        found.append("'branches' needs at least one step with 2 or more branches.")
    found += [
        f"'branches' has {k} at step {i}; a group needs at least 2 branches, or 0 for none."
        for i, k in enumerate(config.branches)
        if k == 1
    ]
    if len(config.branches) > config.rollout_steps:
        found.append(
            f"'branches' lists {len(config.branches)} steps but a rollout has {config.rollout_steps}."
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.device):
        found.append(f"'device' must be auto, cpu, cuda or cuda:N, not '{config.device}'.")
    return found


def _field_problems(name, value, metadata) -> list[str]:
    low, high, choices = metadata["low"], metadata["high"], metadata["choices"]
    if choices and value not in choices:
        return [f"'{name}' must be one of {', '.join(choices)}, not '{value}'."]
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, str) or number is None or low is None:
            continue
        if not math.isfinite(number) or not low <= number <= high:
            return [f"'{name}' must be between {_digits(low)} and {_digits(high)}, not {_digits(number)}."]
    return []


def _digits(number: float) -> str:
    """Write whole numbers in full, so that a limit can be told from a value just beyond it."""
    return str(number) if isinstance(number, int) else f"{number:.12g}"


def from_mapping(values: typing.Mapping[str, object]) -> RunConfig:
    """Build a config from names and loose values, reporting every problem at once.

    Raises:
        InputError: With one sentence per unknown name, wrong type or out-of-range number.
    """
    found, clean = coerce_all(values)
    config = RunConfig(**clean)
    found += problems(config)
    if found:
        raise InputError(*found)
    return config


def parse_assignments(pairs: typing.Iterable[str]) -> dict[str, str]:
    """Split ``key=value`` words, as given to ``--set``.

    Raises:
        InputError: A word has no ``=``.
    """
    found = [f"'{pair}' is not of the form key=value." for pair in pairs if "=" not in pair]
    if found:
        raise InputError(*found)
    return dict(pair.split("=", 1) for pair in pairs)
