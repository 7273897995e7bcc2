"""The life of one run, from a config to a report: load → baseline → train → evaluate → save.

The session owns the run folder, the clock and the stop request; the mathematics is in ``trainers.loop``. A
session may begin in a folder that an earlier, killed session left: finished stages are not repeated, and
training continues from the newest intact checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import psutil
import torch

from trainers import evaluate as ev
from trainers.adapter import reload_adapter, save_adapter
from trainers.checkpoint import load_latest, save_checkpoint
from trainers.coercion import from_mapping
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError, StudioError
from trainers.loop import Trainer
from trainers.machine import choose_device, choose_dtype, quiet_libraries, use_threads
from trainers.models import MODELS
from trainers.models.base import load_model
from trainers.pictures import read_pictures, save_pictures
from trainers.prompts import load_prompts
from trainers.run_folder import (
    HEARTBEAT_SECONDS,
    RunFolder,
    RunStatus,
    append_line,
    atomic_write,
    read_lines,
    write_json,
    write_lines,
)

Listener = Callable[[RunStatus], None]
EVALUATION_MARGIN = 1.25


class Session:
    """One worker's work on one run folder."""

    def __init__(self, folder: RunFolder, config: RunConfig, listener: Listener | None = None):
        """Bind a folder and a config; ``run`` does the work."""
        self.folder = folder
        self.config = config
        self._listener = listener
        process = psutil.Process()
        self._born = process.create_time()
        self._used_before = 0.0
        self._baseline_seconds = 0.0
        self._latest_seconds = 0.0
        earlier = folder.status()
        self.status = RunStatus(
            state="running",
            pid=process.pid,
            pid_started=self._born,
            started=earlier.started or self._born,
            message="Loading the model and the rewards.",
        )

    @property
    def used_seconds(self) -> float:
        """Seconds of the budget that are used, over all sessions of the run, start-up included."""
        return self._used_before + time.time() - self._born

    def run(self) -> RunStatus:
        """Do everything that is left to do and return the final status.

        Raises:
            StudioError: The run failed; the status says so and everything saved so far stays.
        """
        try:
            self._update(state="running", phase="load")
            trainer, model, scorer, items = self._load()
            before = self._baseline(model, scorer, items)
            self._restore(trainer)
            stopped = self._train(trainer)
            self._finish(trainer, scorer, items, before, stopped)
        except StudioError as error:
            self._fail(str(error))
            raise
        except (KeyboardInterrupt, SystemExit):
            self._fail("The run was ended by the system before it could finish.")
            raise
        except Exception as error:
            self._fail(f"The run ended with an unexpected {type(error).__name__}: {error}")
            raise
        return self.status

    # -- stages --------------------------------------------------------------------------------------

    def _load(self):
        config = self.config
        device = choose_device(config)
        dtype = choose_dtype(config, device)
        quiet_libraries()
        self._log(f"device {device}, precision {dtype}, {use_threads(config)} threads")
        prompts, heldout = load_prompts(config.prompts), load_prompts(config.heldout_prompts)
        scorer = ev.load_scorer(config, heldout, device)
        model = load_model(MODELS.get(config.model), device)
        found = scorer.reward.validate_prompts(prompts) + model.prompt_problems(prompts + heldout)
        if found:
            raise InputError(*list(dict.fromkeys(found))[:10])
        items = ev.plan(heldout, config.eval_prompts, config.eval_samples_per_prompt, config.seed)
        return Trainer(config, model, scorer.reward, prompts, dtype), model, scorer, items

    def _baseline(self, model, scorer: ev.Scorer, items) -> ev.Scores:
        names = [record["picture"] for record in read_lines(self.folder.samples / "before.jsonl")]
        if len(names) == len(items):
            return scorer.score(read_pictures(self.folder, names), items)
        self._update(phase="baseline", message=f"Drawing {len(items)} pictures with the base model.")
        started = time.time()
        scores = self._sample_and_score(model, scorer, items)
        names = save_pictures(self.folder, "before", scores.pictures)
        records = [
            asdict(item) | {"reward": float(value), "picture": name}
            for item, value, name in zip(items, scores.reward, names, strict=True)
        ]
        write_lines(self.folder.samples / "before.jsonl", records)
        self._baseline_seconds = time.time() - started
        return scores

    def _sample_and_score(self, model, scorer: ev.Scorer, items) -> ev.Scores:
        total = len(items)

        def report(done: int) -> None:
            self._update(message=f"Drawing pictures: {done} of {total}.")

        config = self.config
        pictures = ev.sample_items(model, items, config.eval_batch, config.guidance_scale, report)
        return scorer.score(pictures, items)

    def _restore(self, trainer: Trainer) -> None:
        checkpoint = load_latest(self.folder)
        done = 0
        if checkpoint is not None:
            trainer.restore(checkpoint)
            done = checkpoint.progress.updates
            self._used_before = checkpoint.progress.used_seconds
            self._baseline_seconds = self._baseline_seconds or checkpoint.progress.baseline_seconds
        lines = [line for line in self.folder.read_metrics() if line.get("step", 0) <= done]
        write_lines(self.folder.metrics, lines)

    def _train(self, trainer: Trainer) -> bool:
        """Train until the budget, the update limit or a stop request; return whether it was stopped."""
        saved = time.time()
        self._update(phase="train", message="Training.")
        while not self._training_done(trainer):
            if self.folder.stop_requested():
                self._save_checkpoint(trainer)
                return True
            started = time.perf_counter()
            try:
                records = trainer.advance()
            except FaultError:
                save_adapter(trainer.policy, self.folder.adapter)
                raise
            self._latest_seconds = time.perf_counter() - started
            for record in records:
                append_line(self.folder.metrics, replace(record, seconds=self.used_seconds).record())
            self._update(**self._training_status(trainer, records[-1]))
            if time.time() - saved >= self.config.checkpoint_seconds:
                self._save_checkpoint(trainer)
                saved = time.time()
        self._save_checkpoint(trainer)
        return False

    def _save_checkpoint(self, trainer: Trainer) -> None:
        save_checkpoint(self.folder, trainer.checkpoint(self.used_seconds, self._baseline_seconds))

    def _training_done(self, trainer: Trainer) -> bool:
        progress, limit = trainer.progress, self.config.max_updates
        if limit and progress.updates >= limit:
            return True
        if progress.rollouts == 0:
            return False
        rollout_seconds = max(progress.train_seconds / progress.rollouts, self._latest_seconds)
        return self.used_seconds + rollout_seconds > self.config.budget_seconds - self._evaluation_seconds()

    def _evaluation_seconds(self) -> float:
        return EVALUATION_MARGIN * self._baseline_seconds + 2.0

    def _training_status(self, trainer: Trainer, record) -> dict:
        left = self.config.budget_seconds - self.used_seconds
        limit = self.config.max_updates
        if limit:
            pace = trainer.progress.train_seconds / max(1, record.step)
            left = min(left, (limit - record.step) * pace + self._evaluation_seconds())
        left = max(0.0, left)
        return {
            "updates": record.step,
            "images_sampled": record.images_sampled,
            "images_per_second": record.images_per_second,
            "progress": min(1.0, self.used_seconds / max(1e-9, self.used_seconds + left)),
            "eta_seconds": left,
            "message": f"Training: reward {record.reward_mean:.3f} in the latest rollout.",
        }

    def _finish(self, trainer: Trainer, scorer, items, before: ev.Scores, stopped: bool) -> None:
        self._update(phase="evaluate", message="Saving the adapter and loading it into a fresh pipeline.")
        save_adapter(trainer.policy, self.folder.adapter)
        model = reload_adapter(MODELS.get(self.config.model), self.folder.adapter, trainer.policy.device)
        after = self._sample_and_score(model, scorer, items)
        if trainer.progress.updates and torch.equal(after.pictures, before.pictures):
            raise FaultError(
                "The saved adapter does not change a single picture after reloading, so the training had no "
                "effect. Train longer or with a larger learning_rate."
            )
        self._update(phase="save", message="Writing the comparison.")
        names = save_pictures(self.folder, "after", after.pictures)
        write_lines(self.folder.pairs, self._pairs(items, before, after, names))
        report = self._report(trainer, model, items, before, after)
        write_json(self.folder.report, report)
        with contextlib.suppress(OSError):
            self.folder.stop_file.unlink(missing_ok=True)
        state = "stopped" if stopped else "succeeded"
        self._update(state=state, phase="done", progress=1.0, eta_seconds=0.0, message=_verdict(report))

    def _report(self, trainer: Trainer, model, items, before: ev.Scores, after: ev.Scores) -> dict:
        prompts = [item.prompt for item in items]
        return {
            "model": self.config.model,
            "reward": self.config.reward,
            "estimator": self.config.estimator,
            "seed": self.config.seed,
            "before": ev.summarise(before, prompts),
            "after": ev.summarise(after, prompts),
            "paired": ev.paired(before.reward, after.reward, prompts),
            "drift": ev.drift(model, list(dict.fromkeys(prompts)), self.config.seed),
            "updates": trainer.progress.updates,
            "images_sampled": trainer.progress.images_sampled,
            "network_evaluations": trainer.progress.evaluations,
            "sampling": model.sampling_record(self.config.guidance_scale),
            "train_seconds": trainer.progress.train_seconds,
            "wall_seconds": self.used_seconds,
        }

    @staticmethod
    def _pairs(items, before: ev.Scores, after: ev.Scores, names: list[str]) -> list[dict]:
        return [
            {
                "index": item.index,
                "prompt": item.prompt,
                "seed": item.seed,
                "reward_before": float(before.reward[i]),
                "reward_after": float(after.reward[i]),
                "before": name.replace("after/", "before/"),
                "after": name,
            }
            for i, (item, name) in enumerate(zip(items, names, strict=True))
        ]

    # -- status --------------------------------------------------------------------------------------

    def _update(self, **changes) -> None:
        """Change the status; writes the file at most once a second unless state or phase changes."""
        important = any(key in changes for key in ("state", "phase"))
        self.status = replace(self.status, **changes)
        if important:
            self._log(
                f"{self.status.state} · {self.status.phase} · {self.status.error or self.status.message}"
            )
        if important or time.time() - self.status.heartbeat >= HEARTBEAT_SECONDS:
            self.status = replace(self.status, heartbeat=time.time())
            write_json(self.folder.status_file, asdict(self.status))
        if self._listener:
            self._listener(self.status)

    def _log(self, text: str) -> None:
        """Append a dated line to the run's log."""
        with contextlib.suppress(OSError), open(self.folder.log, "a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _fail(self, sentence: str) -> None:
        with contextlib.suppress(FaultError):
            self._update(state="failed", error=sentence, eta_seconds=None)


def start(path: str | os.PathLike, config: RunConfig) -> RunFolder:
    """Create the folder of a new run.

    Raises:
        InputError: The folder already holds another run or other files.
        FaultError: The folder cannot be written.
    """
    folder = RunFolder(path)
    if folder.exists():
        raise InputError(
            f"{folder.path} already holds a run. Choose another --out, or continue it with: "
            f"python -m trainers resume {folder.path}"
        )
    if folder.path.exists() and not folder.path.is_dir():
        raise InputError(f"{folder.path} is a file; --out needs a folder.")
    atomic_write(folder.config, config.to_json())
    return folder


def reopen(path: str | os.PathLike) -> tuple[RunFolder, RunConfig]:
    """Open a run that ended early.

    Raises:
        InputError: There is no run, it is still at work, or it is already finished.
    """
    folder = RunFolder(path)
    if not folder.exists():
        raise InputError(f"{folder.path} holds no run (it has no config.json).")
    values = folder.read_config()
    if not values:
        raise FaultError(f"The settings of this run, {folder.config}, are damaged and cannot be read.")
    status = folder.status()
    if status.live:
        raise InputError(f"The run in {folder.path} is still at work (process {status.pid}).")
    if status.state == "succeeded":
        raise InputError(f"The run in {folder.path} is already finished; its results are in report.json.")
    folder.stop_file.unlink(missing_ok=True)
    return folder, from_mapping(values)


def _verdict(report: dict) -> str:
    pairs, before, after = report["paired"], report["before"]["reward"], report["after"]["reward"]
    return (
        f"Reward {before['mean']:.3f} → {after['mean']:.3f} on {pairs['n']} held-out pictures "
        f"(gain {pairs['mean_gain']:+.3f}, z = {pairs['z']:.1f}, better on {pairs['win_rate']:.0%})."
    )
