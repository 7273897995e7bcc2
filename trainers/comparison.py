"""Methods side by side on pictures: every fitting row, several seeds, equal seconds and equal evaluations.

One race trains one row with one seed until it has used both the seconds and the network evaluations it was
given, and measures the policy when it crosses either line. Only training counts towards the seconds; with
one CPU thread they are the processor's own, so that races may run side by side. All races of a model and
seed see the same held-out prompts and starting noise, so gains are paired by picture.
Every finished race is one line of a JSON-lines file; a command that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainers import evaluate as ev
from trainers.config import RunConfig
from trainers.custom import CUSTOM
from trainers.errors import FaultError
from trainers.loop import Trainer
from trainers.machine import choose_device, choose_dtype, quiet_libraries, use_threads
from trainers.methods import fitting_methods
from trainers.models import MODELS
from trainers.models.base import PipelineModel, load_model
from trainers.policy import Policy
from trainers.presets import build_config
from trainers.prompts import load_prompts
from trainers.run_folder import append_line, read_lines
from trainers.samplers.kernels import ode
from trainers.samplers.rollout import trajectory

TOGETHER = 16  # pictures drawn at once
PATIENCE = 4  # a race ends after this many times its seconds, whatever it has evaluated


@dataclass(frozen=True)
class Race:
    """One row, one seed, one pair of limits.

    Attributes:
        model: Base model.
        reward: The reward that is optimised; differentiable, so that every row may take part.
        estimator: Row of the method table.
        seed: Seed of training and of the comparison's pictures.
        seconds: Training seconds of the first line.
        evaluations: Network evaluations, in rows, of the second line.
        pictures: Held-out pictures, two a prompt.
    """

    model: str
    reward: str
    estimator: str
    seed: int
    seconds: float
    evaluations: int
    pictures: int


def races(
    models: Sequence[str],
    reward: str,
    estimators: Sequence[str],
    seeds: int,
    seconds: float,
    evaluations: int,
    pictures: int,
) -> list[Race]:
    """Return every race, seed by seed, so that an interrupted comparison has all rows of its first seeds."""
    return [
        Race(model, reward, estimator, seed, seconds, evaluations, pictures)
        for seed in range(seeds)
        for model in models
        for estimator in fitting_methods(MODELS.get(model).family, differentiable=True)
        if estimator != CUSTOM and (not estimators or estimator in estimators)
    ]


def run_races(wanted: Sequence[Race], path: Path, threads: int, report: Callable[[str], None]) -> list[dict]:
    """Run the races that ``path`` does not hold yet, append each, and return the results of all.

    Args:
        wanted: The races.
        path: JSON-lines file of finished races.
        threads: CPU threads; 0 uses one per core.
        report: Hears one sentence before and after each race.

    Raises:
        InputError: A row does not fit the model or the reward.
        FaultError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {_key(record): record for record in read_lines(path)}
    for number, race in enumerate(wanted, 1):
        name = f"{number}/{len(wanted)} {race.model} {race.estimator} seed {race.seed}"
        if _key(asdict(race)) in done:
            continue
        report(f"{name}: training for {race.seconds:g} s and {race.evaluations} evaluations.")
        record = run_race(race, threads)
        append_line(path, record)
        done[_key(record)] = record
        report(f"{name}: {_outcome(record)}")
    return [done[_key(asdict(race))] for race in wanted]


def _key(record: Mapping) -> str:
    return json.dumps([record.get(name) for name in Race.__dataclass_fields__])


def _outcome(record: Mapping) -> str:
    if record["error"]:
        return record["error"]
    line = record["by_seconds"]
    gain, z = line["paired"]["mean_gain"], line["paired"]["z"]
    return f"gain {gain:+.4f}, z {z:.2f} after {line['updates']} updates."


def run_race(race: Race, threads: int = 0) -> dict:
    """Run one race.

    Returns:
        The race's fields; ``by_seconds`` and ``by_evaluations``, each with updates, evaluations, seconds,
        paired, others (gains of rewards that were not optimised), diversity (share of before) and drift, or
        None where the line was not reached; ``error``, the sentence of a training that broke, or "".
    """
    config = build_config(
        race.model, race.estimator, race.reward, {"seed": race.seed, "threads": threads, "eval_prompts": 2}
    )
    device = choose_device(config)
    quiet_libraries()
    use_threads(config)
    field = _Field(race, config, device)
    trainer = Trainer(
        config, field.model, field.scorer.reward, load_prompts(config.prompts), choose_dtype(config, device)
    )
    before = field.measure(trainer.policy)
    lines: dict[str, dict | None] = {"by_seconds": None, "by_evaluations": None}
    error, spent = "", 0.0
    clock = time.process_time if device == "cpu" and threads == 1 else time.perf_counter
    try:
        while not all(lines.values()) and spent < PATIENCE * race.seconds:
            started = clock()
            trainer.advance()
            spent += clock() - started
            reached = {
                "by_seconds": spent >= race.seconds,
                "by_evaluations": trainer.policy.evaluations >= race.evaluations,
            }
            crossed = [name for name, there in reached.items() if there and lines[name] is None]
            if crossed:
                lines |= dict.fromkeys(crossed, field.compare(trainer, before, spent))
    except FaultError as fault:
        error = str(fault)
    return asdict(race) | lines | {"error": error}


class _Field:
    """What all policies of a race are judged on: prompts, starting noise, rewards."""

    def __init__(self, race: Race, config: RunConfig, device: str):
        heldout = load_prompts(config.heldout_prompts)
        self.model: PipelineModel = load_model(MODELS.get(race.model), device)
        self.scorer = ev.load_scorer(config, heldout, device)
        self.items = ev.plan(heldout, race.pictures // 2, 2, race.seed)
        self.prompts = [item.prompt for item in self.items]
        self.seed = race.seed
        self.rows = self.model.encode(self.prompts)
        self.schedule = self.model.schedule(int(self.model.call["num_inference_steps"]))
        self.noise = torch.cat([self._noise(item.seed) for item in self.items]).to(self.model.device)

    def _noise(self, seed: int) -> Tensor:
        return torch.randn((1, *self.model.latent_shape), generator=torch.Generator("cpu").manual_seed(seed))

    @torch.no_grad()
    def measure(self, policy: Policy) -> ev.Scores:
        """Draw the pictures of all items with a policy, deterministically, and score them."""
        counted = policy.evaluations
        with policy.as_shipped():
            drawn = [self._draw(policy, part) for part in self._numbers().split(TOGETHER)]
        pictures = torch.cat(drawn).cpu()
        policy.evaluations = counted
        return self.scorer.score(pictures, self.items)

    def _numbers(self) -> Tensor:
        """Number the pictures on the model's device, where parts of them are indexed."""
        return torch.arange(len(self.items), device=self.noise.device)

    def _draw(self, policy: Policy, part: Tensor) -> Tensor:
        def network(latents: Tensor, step: int, samples: Tensor) -> Tensor:
            return policy.sample_output(latents, self.schedule, step, self.rows.select(part[samples]))

        path = trajectory(network, self.schedule, self.noise[part], ode, 0.0, torch.Generator("cpu"))
        return (self.model.decode(path.final) * 255).round().to(torch.uint8)

    def compare(self, trainer: Trainer, before: ev.Scores, seconds: float) -> dict:
        """Return the figures of the present policy, trained for some seconds."""
        updates, evaluations = trainer.progress.updates, trainer.policy.evaluations
        after = self.measure(trainer.policy)
        others = {
            name: ev.clustered(after.others[name] - before.others[name], self.prompts)[0]
            for name in after.others
        }
        drift = self._drift(trainer.policy)
        trainer.policy.evaluations = evaluations
        return {
            "updates": updates,
            "evaluations": evaluations,
            "seconds": seconds,
            "paired": ev.paired(before.reward, after.reward, self.prompts),
            "others": others,
            "diversity": after.diversity / before.diversity if before.diversity > 0 else 1.0,
            "drift": drift,
        }

    @torch.no_grad()
    def _drift(self, policy: Policy) -> float:
        rows = self.rows.select(torch.arange(min(ev.DRIFT_PROMPTS, len(self.items))))
        latents = self.noise[: len(rows.embeds)]
        return ev.relative_change(
            self.schedule,
            latents,
            lambda states, step: policy.output(states, self.schedule, step, rows),
            lambda states, step: policy.reference(states, self.schedule, step, rows),
        )
