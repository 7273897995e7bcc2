"""What a run will take, before it starts: time, updates, pictures, memory, and what it lacks. Torch-free.

The session ends training when the next rollout would not leave room for the second half of the comparison;
``estimate`` follows that rule with speeds that were measured: those of earlier runs here (``measured``), else
those of ``trainers.speeds``. Drawing base samples to look at their rewards is ``trainers.spread``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainers import long_prompts
from trainers.config import RunConfig
from trainers.custom import method_of
from trainers.errors import InputError
from trainers.models import MODELS
from trainers.models.access import access_problems
from trainers.models.configured import configured, usual_steps
from trainers.presets import default_config
from trainers.prompt_files import PromptRow, as_text
from trainers.prompts import load_rows
from trainers.rewards import reward_obstacles, unscorable
from trainers.speeds import MACHINE, SPEEDS

EVALUATION_MARGIN = 1.25
RESERVE_SECONDS = 2.0
MOST_TOLD = 10
SAMPLES = 2  # pictures per prompt of a probe


@dataclass(frozen=True)
class Speed:
    """How fast a machine is with one model and one estimator.

    Attributes:
        start_seconds: From starting the process to the first picture, saving at the end included.
        picture_seconds: One picture of the comparison in the model's own number of steps, scoring included.
        update_seconds: One rollout with its updates.
        work: ``work`` of the settings for which ``update_seconds`` was measured.
        memory_mb: Largest memory of the process, in 2**20 bytes.
        source: Where the figures come from, as a sentence.
    """

    start_seconds: float
    picture_seconds: float
    update_seconds: float
    work: float
    memory_mb: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """What a run will take; times in seconds.

    Attributes:
        start_seconds: Loading and saving.
        comparison_seconds: Drawing and scoring the pictures before and after.
        training_seconds: Rollouts, updates and looks at held-out prompts.
        updates: Expected optimiser steps.
        comparison_pictures: Pictures of both sides together.
        training_pictures: Pictures sampled for training.
        probe_pictures: Pictures of the looks at held-out prompts.
        group_size: Pictures whose rewards are compared with each other; 0 when gradients are read instead.
        memory_mb: Expected memory, in 2**20 bytes.
        fits: Whether the time budget has room for one update; the engine makes one in any case.
        source: What the estimate rests on, as a sentence.
    """

    start_seconds: float
    comparison_seconds: float
    training_seconds: float
    updates: int
    comparison_pictures: int
    training_pictures: int
    probe_pictures: int
    group_size: int
    memory_mb: float
    fits: bool
    source: str

    @property
    def total_seconds(self) -> float:
        """The whole run."""
        return self.start_seconds + self.comparison_seconds + self.training_seconds


@dataclass(frozen=True)
class Finished:
    """What a finished run tells about its speed.

    Attributes:
        config: Its settings.
        report: Its ``report.json``.
        metrics: Its lines, one per update.
        probes: Its lines, one per look at held-out prompts.
        baseline_seconds: What the comparison before training took.
    """

    config: RunConfig
    report: Mapping
    metrics: Sequence[Mapping]
    probes: Sequence[Mapping]
    baseline_seconds: float | None


def obstacles(config: RunConfig, ask: bool = True) -> list[str]:
    """Return a sentence for everything that a run needs and this machine lacks; empty when it can start.

    Args:
        config: The settings, already checked.
        ask: Whether the network may be asked: endpoints, the Hub. It takes some seconds where it is silent.
    """
    return access_problems(configured(config), ask) + reward_obstacles(config, ask)


def prompt_problems(
    config: RunConfig, own: Sequence[PromptRow] | None = None, ask: bool = False
) -> dict[str, list[str]]:
    """Return what speaks against a run's prompts, by the setting that names them; loads no weights.

    That is what the rewards cannot score, and what the model would cut off where that is refused: the
    sentences that a worker would end with. Only the first ones of each setting are told.

    Args:
        config: The settings, already checked.
        own: The training prompts when they are not those that ``config.prompts`` names.
        ask: Whether the Hub may be asked for the files of a tokenizer.

    Raises:
        InputError: A prompt file cannot be read.
    """
    sets = _sets(config, own)
    with _stored(config, own) as named:
        return {
            "prompts": _unusable("prompts", sets["prompts"], named, ask, config.reward),
            "heldout_prompts": _unusable(
                "heldout_prompts", sets["heldout_prompts"], named, ask, config.reward, config.others
            ),
        }


def _sets(config: RunConfig, own: Sequence[PromptRow] | None) -> dict[str, Sequence[PromptRow]]:
    training = load_rows(config.prompts) if own is None else own
    return {"prompts": training, "heldout_prompts": load_rows(config.heldout_prompts)}


@contextlib.contextmanager
def _stored(config: RunConfig, own: Sequence[PromptRow] | None) -> Iterator[RunConfig]:
    """Let the settings name own prompts that say more than their text, where rewards look for that."""
    if not own or not any(row.record for row in own):
        yield config
        return
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.write(as_text(own))
        file.flush()
        yield dataclasses.replace(config, prompts=file.name)


def _unusable(name: str, rows: Sequence[PromptRow], config: RunConfig, ask: bool, *rewards: str) -> list[str]:
    long = long_prompts.find_long(config, name, rows, ask)
    prompts = [row.prompt for row in long_prompts.kept(config, rows, long)]
    found = [sentence for text in rewards for sentence in unscorable(text, prompts, config)]
    found += long_prompts.problems(config, rows, long)
    return list(dict.fromkeys(found))[:MOST_TOLD]


def group_size(config: RunConfig) -> int:
    """Return how many pictures are compared with each other; 0 for methods that read gradients."""
    method = method_of(config)
    if method.order == "first":
        return 0
    if method.branching == "per_step":
        return max(config.branches)
    if method.branching == "tree":
        return _leaves(config)
    samples = config.group_size
    return samples if method.groups == "prompt" else samples * config.prompts_per_update


def groups_per_rollout(config: RunConfig) -> int:
    """Return how many such groups one rollout has; 0 for methods that read gradients."""
    method = method_of(config)
    if method.order == "first":
        return 0
    if method.branching in ("per_step", "tree"):
        branching = sum(1 for count in config.branches if count) if method.branching == "per_step" else 1
        return config.prompts_per_update * config.roots_per_prompt * branching
    return config.prompts_per_update if method.groups == "prompt" else 1


def pictures_per_rollout(config: RunConfig) -> int:
    """Return how many pictures one rollout finishes."""
    method = method_of(config)
    roots = config.prompts_per_update * config.roots_per_prompt
    if method.order == "first":
        return roots
    if method.branching == "per_step":
        return roots * sum(config.branches)
    if method.branching == "tree":
        return roots * _leaves(config)
    return config.prompts_per_update * config.group_size


def work(config: RunConfig) -> float:
    """Return the network evaluations of one rollout, up to a factor that belongs to the estimator.

    Pictures times sampling steps: exact for whole trajectories, and a good measure of change for branches,
    which share their first steps.
    """
    return float(pictures_per_rollout(config) * config.rollout_steps * _guidance_factor(config))


def measured(runs: Sequence[Finished]) -> Speed | None:
    """Return the speed of finished runs of one model and estimator; None when none of them tells."""
    speeds = [speed for run in runs if (speed := _speed_of(run))]
    if not speeds:
        return None

    def middle(name: str) -> float:
        return statistics.median(getattr(speed, name) for speed in speeds)

    times = "an earlier run" if len(speeds) == 1 else f"{len(speeds)} earlier runs"
    scale = speeds[0].work
    return Speed(
        middle("start_seconds"),
        middle("picture_seconds"),
        statistics.median(speed.update_seconds * scale / speed.work for speed in speeds),
        scale,
        max(speed.memory_mb for speed in speeds),
        f"Measured in {times} with this model and estimator on this machine.",
    )


def reference(config: RunConfig) -> Speed | None:
    """Return the speed of the reference machine with a model and an estimator; None for another model."""
    if config.model not in SPEEDS:
        return None
    model = SPEEDS[config.model]
    method = method_of(config)
    tuned = default_config(config.model, config.estimator, config.reward)
    seconds = model.update_seconds.get(config.estimator) or model.other_seconds[method.order]
    return Speed(
        model.start_seconds,
        model.picture_seconds,
        seconds,
        work(tuned),
        model.memory_mb,
        f"No run with these choices has finished here yet, so the figures are those of {MACHINE}; expect "
        "other times on another machine.",
    )


def _speed_of(run: Finished) -> Speed | None:
    known = run.report.get("prompts")
    compared = known if isinstance(known, int) and known > 0 else run.config.eval_prompts
    drawn = compared * run.config.eval_samples_per_prompt
    lines = [line for line in run.metrics if line.get("rollout_seconds") and line.get("update_seconds")]
    looks = sum(float(line.get("cost", 0.0)) for line in run.probes)
    try:
        baseline = float(run.baseline_seconds or 0.0)
        start = float(run.report["wall_seconds"]) - float(run.report["train_seconds"]) - looks - 2 * baseline
    except (KeyError, TypeError, ValueError):
        return None
    if not lines or baseline <= 0:
        return None
    return Speed(
        max(1.0, start),
        baseline / drawn / _steps_share(run.config),
        statistics.median(_seconds(line, run.config) for line in lines),
        work(run.config),
        max(float(line.get("peak_memory_mb", 0.0)) for line in lines),
        "",
    )


def _seconds(line: Mapping, config: RunConfig) -> float:
    return float(line["rollout_seconds"]) + float(line["update_seconds"]) * config.updates_per_rollout


def compared_prompts(config: RunConfig) -> int:
    """Return how many prompts the comparison has: not more than the held-out set."""
    try:
        return min(config.eval_prompts, len(load_rows(config.heldout_prompts)))
    except InputError:  # which is told by whatever checks the prompts
        return config.eval_prompts


def _steps_share(config: RunConfig) -> float:
    """Return the steps of an image of the comparison as a share of those that the model takes by itself."""
    usual = usual_steps(MODELS.get(config.model)) if config.eval_steps else None
    return config.eval_steps / usual if usual else 1.0


def estimate(config: RunConfig, speed: Speed) -> Estimate:
    """Return what a run with these settings will take at this speed."""
    compared = compared_prompts(config)
    drawn = compared * config.eval_samples_per_prompt
    picture_seconds = speed.picture_seconds * _steps_share(config)
    side = drawn * picture_seconds
    per_rollout = speed.update_seconds * work(config) / speed.work
    look = min(config.probe_prompts, compared) * SAMPLES
    share = config.updates_per_rollout / config.probe_every if config.probe_every else 0.0
    with_looks = per_rollout + share * look * picture_seconds
    room = config.budget_seconds - speed.start_seconds - side - (EVALUATION_MARGIN * side + RESERVE_SECONDS)
    rollouts = max(1, int(room / with_looks))
    if config.max_updates:
        rollouts = min(rollouts, -(-config.max_updates // config.updates_per_rollout))
    updates = rollouts * config.updates_per_rollout
    looks = 1 + (updates - 1) // config.probe_every if config.probe_every else 0
    return Estimate(
        speed.start_seconds,
        2 * side,
        rollouts * per_rollout + looks * look * picture_seconds,
        updates,
        2 * drawn,
        rollouts * pictures_per_rollout(config),
        looks * look,
        group_size(config),
        speed.memory_mb,
        room >= with_looks,
        speed.source,
    )


def _leaves(config: RunConfig) -> int:
    leaves = 1
    for count in config.branches:
        leaves *= max(1, count)
    return leaves


def _guidance_factor(config: RunConfig) -> int:
    return 2 if config.guidance_scale is not None and config.guidance_scale > 1 else 1
