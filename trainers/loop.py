"""The training loop: rollout → rewards → guidance → loss → step.

``Trainer.advance`` does one rollout and its updates. It knows nothing about folders, budgets or evaluation
(``trainers.session``); everything it carries from one call to the next goes through ``checkpoint`` and
``restore``, so a restored trainer continues bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from trainers.checkpoint import Checkpoint, Progress, optimiser_state, restore_optimiser
from trainers.config import RunConfig
from trainers.core.schedule import Schedule
from trainers.custom import method_of
from trainers.errors import FaultError
from trainers.estimators.contract import EstimatorState, Rollout, StepRows, Task
from trainers.loss_scale import LossScale
from trainers.machine import differentiable_attention, peak_memory_mb
from trainers.method import Method
from trainers.micro_batches import MicroBatch, pack
from trainers.models.base import Conditions, PipelineModel
from trainers.objective import Objective
from trainers.phases import phase
from trainers.policy import PULL, ROLLOUT, SHIPPED, Policy, Steps
from trainers.ranks import ALONE, Ranks
from trainers.rewards import Mixture
from trainers.seeds import generator_for, prompt_batch, seed_for
from trainers.tally import Sums, Tally
from trainers.updates import split_updates

PURPOSES = ("latents", "transitions", "steps", "updates")


@dataclass(frozen=True)
class UpdateMetrics:
    """One line of ``metrics.jsonl``; docs/METRICS.md explains each field."""

    step: int
    epoch: int
    seconds: float
    reward_mean: float
    reward_std: float
    zero_spread_groups: int
    loss: float
    grad_norm: float
    clip_fraction: float
    ratio_mean: float
    pull: float
    kl: float
    lr: float
    images_per_second: float
    peak_memory_mb: float
    rollout_seconds: float
    update_seconds: float
    images_sampled: int

    def record(self) -> dict:
        """Return the fields as a mapping."""
        return asdict(self)


class Trainer:
    """Policy, optimiser, estimator and objective of one run.

    Attributes:
        rows_trained: Rows that passed forwards and backwards in this process.
    """

    def __init__(
        self,
        config: RunConfig,
        model: PipelineModel,
        reward: Mixture,
        prompts: Sequence[str],
        dtype: torch.dtype,
        policy: Policy | None = None,
        ranks: Ranks = ALONE,
    ):
        """Build everything at update 0; ``restore`` moves to a checkpoint.

        Args:
            config: The settings.
            model: The loaded base model.
            reward: The reward to maximise.
            prompts: The training prompts.
            dtype: Precision of the networks.
            policy: What is trained; by default the model's network with a new LoRA.
            ranks: The processes that share the work; every one builds its own trainer.
        """
        method = method_of(config)
        self.config = config
        self.ranks = ranks
        self.reward = reward
        self.prompts = list(prompts)
        self.policy = policy or _new_policy(config, model, dtype)
        self.policy.train_unconditional = method.train_unconditional
        self._averages = _averages(method, config)
        for purpose in self._averages:
            self.policy.follow(0.0, purpose)
        self.policy.refresh()
        # A reward gradient passes through the decoder once a picture; values only need its output.
        model.use_decoder_precision(torch.float32 if method.order == "first" else dtype)
        self.schedule = model.schedule(config.rollout_steps)
        self.objective = Objective(method, config, self.schedule)
        self.estimator = method.load()(method, config)
        self.optimiser = torch.optim.AdamW(
            self.policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._loss_scale = LossScale(self.policy.parameters(), dtype)
        self.conditions = model.encode(self.prompts)
        self._use_micro_batch(config.micro_batch)
        self.progress = Progress()
        self.rows_trained = 0

    def advance(self) -> list[UpdateMetrics]:
        """Do one rollout and its updates; return one record per update.

        Raises:
            FaultError: A reward, loss or gradient is not finite; the LoRA keeps its last finite update.
        """
        self.ranks.order("advance")
        with self.ranks.together():
            return self._advance()

    def _advance(self) -> list[UpdateMetrics]:
        started, counted = time.perf_counter(), self.policy.evaluations
        rollout, task = self._rollout()
        rolled = time.perf_counter()
        records = []
        updates = generator_for(self.config.seed, "updates", self.progress.rollouts)
        parts = split_updates(
            rollout.rows, self.objective.method, self.config.updates_per_rollout, updates, self.ranks
        )
        # The first update starts from the policy that made the rollout, so its own outputs are the old ones.
        olds = [
            self._old_outputs(task, part) if number or self.policy.trails else None
            for number, part in enumerate(parts)
        ]
        images = self.progress.images_sampled + rollout.images_sampled
        self.progress = replace(self.progress, rollouts=self.progress.rollouts + 1, images_sampled=images)
        before = rolled
        for part, old in zip(parts, olds, strict=True):
            with differentiable_attention(self.policy.device):
                sums, norm = self._update(task, part, old)
            now = time.perf_counter()
            self.progress = replace(self.progress, updates=self.progress.updates + 1)
            self._follow_update()
            records.append(self._metrics(rollout, sums, norm, rolled - started, now - before))
            before = now
        self._follow_rollout()
        self.policy.refresh()
        self.policy.evaluations = counted + sum(self.ranks.exchange(self.policy.evaluations - counted))
        self.progress = replace(
            self.progress,
            train_seconds=self.progress.train_seconds + before - started,
            evaluations=self.policy.evaluations,
            estimator=dict(self.estimator.state.values),
        )
        return records

    def checkpoint(self, used_seconds: float = 0.0, baseline_seconds: float = 0.0) -> Checkpoint:
        """Return everything that ``restore`` needs, with the session's clock."""
        progress = replace(self.progress, used_seconds=used_seconds, baseline_seconds=baseline_seconds)
        return Checkpoint(
            progress,
            self.policy.state(),
            optimiser_state(self.optimiser),
            self.policy.trailing_state(),
            dict(self.estimator.state.tensors),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of the same config, made by any number of processes."""
        if not self.ranks.alone:
            self.ranks.order("restore", checkpoint.on_cpu())
        self.policy.load_trailing(checkpoint.trailing)
        self.policy.load_state(checkpoint.lora)
        restore_optimiser(self.optimiser, checkpoint.optimiser)
        self.progress = checkpoint.progress
        self._mark_shipped()
        self.policy.evaluations = checkpoint.progress.evaluations
        self.estimator.state = EstimatorState(dict(checkpoint.progress.estimator), dict(checkpoint.estimator))
        self._use_micro_batch(checkpoint.progress.micro_batch or self.config.micro_batch)

    def halve_micro_batch(self) -> None:
        """Let half as many rows pass through the network at once; the mean over an update's rows stays."""
        self.ranks.order("halve_micro_batch")
        self._use_micro_batch(max(1, self.micro_batch // 2))
        self.progress = replace(self.progress, micro_batch=self.micro_batch)

    def _use_micro_batch(self, rows: int) -> None:
        self.micro_batch = self.policy.micro_batch = min(rows, self.policy.model.footprint.micro_batch)

    def _rollout(self) -> tuple[Rollout, Task]:
        number, config = self.progress.rollouts, self.config
        chosen = prompt_batch(config.seed, number, len(self.prompts), config.prompts_per_update)
        generators = {name: generator_for(config.seed, name, number) for name in PURPOSES}
        mine = torch.tensor(chosen[self.ranks.share.rows(len(chosen))])
        task = Task(
            self.policy,
            self.schedule,
            self.prompts,
            self.conditions.only(torch.cat([mine, self.estimator.stored_prompts()])),
            mine,
            self.reward,
            generators,
            self.ranks,
        )
        try:
            return self._whole(self.estimator.collect(task)), task
        except FaultError as error:
            raise FaultError(f"At update {self.progress.updates + 1}: {error}") from error

    def _whole(self, mine: Rollout) -> Rollout:
        """Return this process's rows among everybody's, with everybody's rewards."""
        if self.ranks.alone:
            return mine
        counts = [len(row.latents) for row in mine.rows]
        told = self.ranks.exchange((counts, mine.rewards.cpu(), mine.zero_spread_groups, mine.images_sampled))
        columns = list(zip(*(counts for counts, *_ in told), strict=True))
        rows = tuple(
            replace(row, first=sum(column[: self.ranks.rank]), total=sum(column))
            for row, column in zip(mine.rows, columns, strict=True)
        )
        _, rewards, silent, images = zip(*told, strict=True)
        return Rollout(rows, torch.cat(rewards), sum(silent), sum(images))

    def _follow_update(self) -> None:
        """Let the average that is evaluated and saved take up the present weights when its turn has come.

        It keeps less of itself at first, so that the beginning is forgotten. Source: Flow-GRPO's program,
        whose first turn is one update early.
        """
        done = self.progress.updates
        if SHIPPED in self._averages and (done + 1) % self.config.ema_every == 0:
            self.policy.follow(min((1 + done) / (10 + done), self.config.ema_decay), SHIPPED)
        self._mark_shipped()

    def _mark_shipped(self) -> None:
        moved = self.progress.updates >= max(1, self.config.ema_every - 1)
        self.policy.ships_average = SHIPPED in self._averages and moved

    def _follow_rollout(self) -> None:
        """Let the old policy, or the one that holds, follow the trained one after a rollout's updates."""
        config = self.config
        grown = config.old_decay_rate * max(0, self.progress.updates - config.old_decay_start)
        for purpose in self._averages:
            if purpose != SHIPPED:
                self.policy.follow(min(grown, config.old_decay_max), purpose)

    def _old_outputs(self, task: Task, part: list[StepRows]) -> list[Tensor]:
        """Return o_old in the same micro-batches as the update, so that an unmoved policy has Δo = 0."""
        with torch.no_grad(), differentiable_attention(self.policy.device):
            return [self.policy.old_output(*self._where(task, batch)) for batch in self._packed(part)]

    def _packed(self, part: list[StepRows]) -> list[MicroBatch]:
        return pack(part, self.micro_batch, mixed=not self._loss_scale.active)

    def _where(self, task: Task, batch: MicroBatch) -> tuple[Tensor, Schedule, Steps, Conditions]:
        """Return what the networks are asked about a micro-batch."""
        return batch.latents, self.schedule, batch.step, task.conditions.select(batch.prompt_index)

    def _update(self, task: Task, part: list[StepRows], old: list[Tensor] | None) -> tuple[Sums, float]:
        self._loss_scale.begin()
        while True:
            sums = self._gradients(task, part, old)
            with phase("optimiser"):
                limit = self.config.max_grad_norm
                norm = float(torch.nn.utils.clip_grad_norm_(self.policy.parameters(), limit))
                if math.isfinite(norm) or not math.isfinite(sums.loss) or not self._loss_scale.lower():
                    self._step(sums, norm)
                    return sums, norm

    def _gradients(self, task: Task, part: list[StepRows], old: list[Tensor] | None) -> Sums:
        self.optimiser.zero_grad(set_to_none=True)
        tally = Tally()
        for number, batch in enumerate(self._packed(part)):
            output = self.policy.output(*self._where(task, batch))
            previous = output.detach() if old is None else old[number]
            references = self._references(task, batch, told=self.ranks.rank == number == 0)
            loss = self._losses(batch, output, previous, references, self._average(task, batch), tally)
            with phase("training_backward"):
                self._loss_scale.backward(loss, output)
            self.rows_trained += len(output)
        sums = tally.sums(self.ranks)
        self.ranks.sum_gradients(self.policy.parameters())
        return sums

    def _references(self, task: Task, batch: MicroBatch, told: bool) -> list[Tensor | None]:
        """Return o_ref of each step's rows where the loss needs it; else of the first ones, if it is told."""
        needed = [self.objective.needs_reference(rows.anchor_only) for rows in batch.parts]
        needed[0] = needed[0] or told
        asked = MicroBatch(tuple(rows for rows, need in zip(batch.parts, needed, strict=True) if need))
        if not asked.parts:
            return batch.split(None)
        found = iter(asked.split(self.policy.reference(*self._where(task, asked))))
        return [next(found) if need else None for need in needed]

    def _average(self, task: Task, batch: MicroBatch) -> Tensor | None:
        """Return the output of the average that holds the policy, if there is one."""
        if self.objective.held_to != "average" or batch.anchor_only:
            return None
        return self.policy.old_output(*self._where(task, batch), PULL)

    def _losses(
        self,
        batch: MicroBatch,
        output: Tensor,
        old: Tensor,
        references: list[Tensor | None],
        average: Tensor | None,
        tally: Tally,
    ) -> Tensor:
        """Return the weighted loss of a micro-batch (scalar), and tell the tally what each step said."""
        losses = []
        outputs, olds, averages = (batch.split(values) for values in (output, old, average))
        for rows, *found in zip(batch.parts, outputs, olds, references, averages, strict=True):
            result = self.objective(rows, *found)
            losses.append(result.loss.sum())
            tally.add(rows, losses[-1], result, found[2] is not None)
        return torch.stack(losses).sum()

    def _step(self, sums: Sums, norm: float) -> None:
        told = {"loss": sums.loss, "gradient norm": norm, "mean ratio": sums.mean_ratio, "KL": sums.mean_kl}
        for name, value in told.items():
            if not math.isfinite(value):  # a ratio may be so where the loss, clipped, is not
                raise FaultError(
                    f"At update {self.progress.updates + 1} the {name} became {value}. The run stopped and "
                    "kept the adapter of the update before; try a smaller learning_rate or a larger "
                    "kl_weight."
                )
        self.optimiser.step()

    def _metrics(self, rollout, sums, norm, rollout_seconds, update_seconds) -> UpdateMetrics:
        share = self.config.updates_per_rollout
        return UpdateMetrics(
            step=self.progress.updates,
            epoch=self.progress.rollouts,
            seconds=0.0,
            reward_mean=float(rollout.rewards.mean()),
            reward_std=float(rollout.rewards.std(correction=0)),
            zero_spread_groups=rollout.zero_spread_groups,
            loss=sums.loss,
            grad_norm=norm,
            clip_fraction=sums.clip_fraction,
            ratio_mean=sums.mean_ratio,
            pull=sums.mean_pull,
            kl=sums.mean_kl,
            lr=self.config.learning_rate,
            images_per_second=rollout.images_sampled / (rollout_seconds + update_seconds * share),
            peak_memory_mb=peak_memory_mb(self.policy.device),
            rollout_seconds=rollout_seconds,
            update_seconds=update_seconds,
            images_sampled=self.progress.images_sampled,
        )


def _new_policy(config: RunConfig, model: PipelineModel, dtype: torch.dtype) -> Policy:
    """Return the model's network with a new LoRA."""
    return Policy(
        model,
        config.lora_rank,
        config.lora_alpha,
        seed_for(config.seed, "lora"),
        dtype,
        config.guidance_scale,
        config.micro_batch,
        config.compile == "regional",
    )


def _averages(method: Method, config: RunConfig) -> tuple[str, ...]:
    """Return the purposes for which a run keeps moving averages of its weights."""
    kept = {"rollout": ROLLOUT, "pull": PULL}.get(method.average) if config.old_decay_max > 0 else None
    return (*([kept] if kept else []), *([SHIPPED] if config.ema_decay > 0 else []))
