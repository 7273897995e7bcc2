"""The life of one run, from a config to a report: load → baseline → train → evaluate → save.

The session owns the run folder, the clock and the stop request; the mathematics is in ``trainers.loop``. A
session may begin in a folder that an earlier, killed session left: finished stages are not repeated, and
training continues from the newest intact checkpoint. A stop request acts between two batches of any phase:
the rollout that it meets is undone, to be repeated exactly by a later session.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from trainers import evaluate as ev
from trainers.adapter import load_adapter, reload_adapter, save_adapter
from trainers.adapter_file import WEIGHTS
from trainers.checkpoint import Checkpoint, load_latest, save_checkpoint
from trainers.config import RunConfig
from trainers.errors import FaultError, StudioError
from trainers.failures import MEMORY, explain, out_of_memory
from trainers.first_checks import CONSTANT, after_baseline, before_baseline, unchanged_sentence
from trainers.interruption import FINISHING_SECONDS, STOP_SECONDS, Interruption, OutOfTime, StopRequested
from trainers.loading import load_trainer
from trainers.long_prompts import used_prompts
from trainers.loop import Trainer, UpdateMetrics
from trainers.machine import choose_device, choose_dtype, quiet_libraries, settled, use_threads
from trainers.models.base import PipelineModel
from trainers.models.configured import configured
from trainers.models.memory import EVERYTHING
from trainers.notes import Notes
from trainers.preflight import EVALUATION_MARGIN, RESERVE_SECONDS, groups_per_rollout
from trainers.probes import Probes
from trainers.processes import process_age
from trainers.ranks import ALONE, Ranks
from trainers.report import Comparison, verdict
from trainers.run_folder import (
    RunFolder,
    RunStatus,
    append_line,
    keep_lines,
    sync,
    write_json,
)
from trainers.run_inputs import confirm_model, kept
from trainers.status_writer import Listener, StatusWriter


class Session:
    """One worker's work on one run folder."""

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        listener: Listener | None = None,
        interruption: Interruption | None = None,
        age: float | None = None,
        ranks: Ranks = ALONE,
        on_note: Callable[[str], None] | None = None,
    ):
        """Bind a folder and a config; ``run`` does the work.

        Args:
            folder: The run.
            config: Its settings.
            listener: Hears every status.
            interruption: What may end the session early; the run's stop file when None.
            age: Seconds of the budget that this session has used already; the process's age when None.
            ranks: The processes that work on the run; this one leads.
            on_note: Called with every new note, see ``trainers.notes``.
        """
        self.folder = folder
        self._writer = StatusWriter(folder, listener)
        self.notes = Notes(folder, self._writer.log, *([on_note] if on_note else []))
        self.ranks = ranks
        self.config = kept(folder, config)
        self.interruption = interruption or Interruption(folder)
        self._began = time.monotonic() - (process_age() if age is None else age)
        self._used_before = 0.0
        self._baseline_seconds = 0.0
        self._latest_seconds = 0.0

    @property
    def status(self) -> RunStatus:
        """The run's status as last written."""
        return self._writer.status

    @property
    def used_seconds(self) -> float:
        """Seconds of the budget that are used, over all sessions of the run, start-up included."""
        return self._used_before + time.monotonic() - self._began

    def run(self) -> RunStatus:
        """Do everything that is left to do, or as much as a stop or the session's time allows.

        Returns:
            The final status: ``succeeded``, ``stopped``, or ``interrupted`` when the session's time is up.

        Raises:
            StudioError: The run failed; the status says so and everything saved so far stays.
        """
        try:
            with self.ranks.confirming_stop():
                self._work()
        except StopRequested:
            self._stopped(f"Stopped before the comparison could be drawn; {self._kept_words()}")
        except OutOfTime:
            self._writer.update(
                state="interrupted",
                eta_seconds=None,
                message="This session's time is up; the next one continues here.",
            )
        except StudioError as error:
            self._writer.fail(str(error))
            raise
        except (KeyboardInterrupt, SystemExit):
            self.interruption.hurry = True  # threads that wait for a server are waited for at the end
            self._stopped(f"Left at once, before the comparison; {self._kept_words()}")
            raise
        except Exception as error:
            self._writer.fail(explain(error))
            if out_of_memory(error):
                raise FaultError(explain(error)) from error
            raise
        finally:
            self._dismiss()
        return self.status

    def _kept_words(self) -> str:
        kept = any(self.folder.checkpoints.glob("*.safetensors"))
        return f"{'what was learned is saved' if kept else 'nothing was learned yet'}. Resume to go on."

    def _dismiss(self) -> None:
        """Let the other processes go, whatever they last met."""
        with contextlib.suppress(StudioError, MemoryError, StopRequested, OutOfTime):
            self.ranks.order("end")

    def _work(self) -> None:
        self._writer.update(state="running", phase="load")
        self.interruption.check()
        trainer, model, comparison = self._load()
        before = self._baseline(model, comparison)
        self._restore(trainer)
        stopped = self._train(trainer)
        if stopped and not trainer.progress.updates:
            self._stopped("Stopped before the first update, so there is nothing to compare yet.")
        else:
            self._finish(trainer, comparison, before, stopped)

    # -- stages --------------------------------------------------------------------------------------

    def _load(self) -> tuple[Trainer, PipelineModel, Comparison]:
        check = self.interruption.check
        self.ranks.check_sharing(self.config.prompts_per_update)
        device, began = choose_device(self.config), self.folder.machine.exists()
        config = settled(self.config, device, self.folder.machine)
        self.ranks.order("load", (config, str(self.folder.path)))
        quiet_libraries()
        precision, threads = choose_dtype(config, device), use_threads(config)
        several = "" if self.ranks.alone else f", {self.ranks.count} processes"
        several += ", as when the run began" if began else ""
        self._writer.log(f"device {device}, precision {precision}, {threads} threads{several}")
        heldout = used_prompts(config, "heldout_prompts")
        scorer = ev.load_scorer(config, heldout, device)
        items = ev.plan(heldout, config.eval_prompts, config.eval_samples_per_prompt, config.seed)
        drawn = [item.prompt for item in items]
        trainer = load_trainer(config, scorer.reward, device, self.ranks, check, drawn)
        confirm_model(self.folder, config)
        if (footprint := trainer.policy.model.footprint) != EVERYTHING:
            self._writer.log(f"fitted into memory: {footprint}")
        scorer.interrupt_with(self.interruption.check_wait)
        before_baseline(trainer.policy, scorer, items, config, self.notes, self._writer.log)
        self._probes = Probes(self.folder, config, scorer, items)
        model = trainer.policy.model
        tell = self._writer.tell
        return trainer, model, Comparison(self.folder, config, scorer, items, self.interruption, tell)

    def _baseline(self, model: PipelineModel, comparison: Comparison) -> ev.Scores:
        drawing = f"Drawing {len(comparison.items)} pictures with the base model."
        self._writer.update(phase="baseline", message=drawing)
        scores = comparison.before(model)
        self._baseline_seconds = comparison.clock.seconds
        after_baseline(scores, self.config, self.used_seconds, self._evaluation_seconds(), self.notes)
        return scores

    def _restore(self, trainer: Trainer) -> None:
        checkpoint = load_latest(self.folder)
        done = 0
        if checkpoint is not None:
            trainer.restore(checkpoint)
            done = checkpoint.progress.updates
            self._used_before = checkpoint.progress.used_seconds
            self._baseline_seconds = max(self._baseline_seconds, checkpoint.progress.baseline_seconds)
        elif (self.folder.start / WEIGHTS).exists():
            load_adapter(trainer.policy, self.folder.start / WEIGHTS)
            trainer.restore(trainer.checkpoint())  # so that the other processes begin with it, too
        keep_lines(self.folder.metrics, lambda line: line.get("step", 0) <= done)
        self._probes.forget_after(done)

    def _train(self, trainer: Trainer) -> bool:
        """Train until the budget, the update limit or a stop request; return whether it was stopped."""
        saved = time.monotonic()
        self.interruption.loading = False
        self._writer.update(phase="train", message="Training.", updates=trainer.progress.updates)
        stopped = False
        while not stopped and not self._training_done(trainer):
            undo = trainer.checkpoint()
            try:
                with self.ranks.confirming_stop():
                    self._probes.look(trainer, self.used_seconds)
                    self._one_rollout(trainer, undo)
            except (StopRequested, OutOfTime) as end:
                _undo(trainer, undo)
                if isinstance(end, OutOfTime):
                    self._save_checkpoint(trainer)
                    raise
                stopped = True
            except FaultError:
                save_adapter(trainer.policy, self.folder.adapter)
                _undo(trainer, undo)
                self._save_checkpoint(trainer)
                raise
            if time.monotonic() - saved >= self.config.checkpoint_seconds:
                self._save_checkpoint(trainer)
                saved = time.monotonic()
        self._save_checkpoint(trainer)
        return stopped

    def _one_rollout(self, trainer: Trainer, undo: Checkpoint) -> None:
        self.interruption.check()
        if self.interruption.seconds_left < self._latest_seconds:
            raise OutOfTime
        started = time.monotonic()
        records = self._advance(trainer, undo)
        self._latest_seconds = time.monotonic() - started
        for record in records:
            append_line(self.folder.metrics, replace(record, seconds=self.used_seconds).record())
        self._writer.update(**self._training_status(trainer, records[-1]))

    def _advance(self, trainer: Trainer, undo: Checkpoint) -> list[UpdateMetrics]:
        """Do one rollout and its updates; when memory runs out, once again with half the micro-batch."""
        try:
            return trainer.advance()
        except Exception as error:
            if not out_of_memory(error):
                raise
            if trainer.progress.micro_batch or trainer.micro_batch < 2:
                raise FaultError(_memory_sentence(trainer)) from error
        # Past the handler, whose traceback would keep the failed pass's tensors alive.
        _undo(trainer, undo)
        trainer.halve_micro_batch()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._writer.log(
            f"Memory ran out; going on with a micro-batch of {trainer.micro_batch} and the same updates."
        )
        try:
            return trainer.advance()
        except Exception as error:
            if out_of_memory(error):
                raise FaultError(_memory_sentence(trainer)) from error
            raise

    def _save_checkpoint(self, trainer: Trainer) -> None:
        sync(self.folder.metrics)  # a checkpoint never knows of updates whose lines could still be lost
        save_checkpoint(self.folder, trainer.checkpoint(self.used_seconds, self._baseline_seconds))

    def _training_done(self, trainer: Trainer) -> bool:
        progress, limit = trainer.progress, self.config.max_updates
        if limit and progress.updates >= limit:
            return True
        if progress.rollouts == 0:
            return False
        ahead = max(progress.train_seconds / progress.rollouts, self._latest_seconds)
        ahead += self._probes.seconds_due(progress.updates)
        return self.used_seconds + ahead > self.config.budget_seconds - self._evaluation_seconds()

    def _evaluation_seconds(self) -> float:
        return EVALUATION_MARGIN * self._baseline_seconds + RESERVE_SECONDS

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

    def _finish(self, trainer: Trainer, comparison: Comparison, before: ev.Scores, stopped: bool) -> None:
        """Save the adapter, load it like anybody would, and compare; shorter when a stop was requested."""
        self.interruption.finishing = True
        drawing = min(self._evaluation_seconds(), STOP_SECONDS if stopped else math.inf)
        self._writer.update(
            state="stopping" if stopped else "running",
            phase="evaluate",
            eta_seconds=drawing + FINISHING_SECONDS,
            message="Saving the adapter and loading it into a fresh pipeline.",
        )
        comparison.forget_others_than(trainer.progress.updates)
        save_adapter(trainer.policy, self.folder.adapter)
        self.interruption.check()
        base = trainer.policy.model
        # On a large model's GPU the base itself takes the adapter: the training's networks are still there, a
        # second pipeline need not fit beside them, and no rollout needs the base any more.
        spare = base if base.footprint.offload else None
        spec = configured(self.config)
        model = reload_adapter(spec, self.folder.adapter, str(trainer.policy.device), spare)
        model.before_batch = self.interruption.check
        before, after = comparison.after(model, before)
        stopped = stopped or len(after.pictures) < len(comparison.items)
        if not stopped and trainer.progress.updates and torch.equal(after.pictures, before.pictures):
            constant = CONSTANT in self.folder.read_notes()
            groups = groups_per_rollout(self.config)
            raise FaultError(unchanged_sentence(self.folder.read_metrics(), groups, constant))
        self._writer.update(phase="save", message="Writing the comparison.")
        comparison.write(before, after)
        report = comparison.report(model, trainer.progress, before, after)
        report |= {"wall_seconds": self.used_seconds, "notes": self.notes.texts}
        write_json(self.folder.report, report)
        if stopped:
            self._stopped(verdict(report), phase="done", progress=1.0)
        else:
            self._forget_stop()
            self._writer.update(
                state="succeeded", phase="done", progress=1.0, eta_seconds=0.0, message=verdict(report)
            )

    # -- status --------------------------------------------------------------------------------------

    def _stopped(self, message: str, **changes) -> None:
        reason = self.folder.stop_reason()
        self._forget_stop()
        self._writer.update(state="stopped", eta_seconds=0.0, message=message, stop_reason=reason, **changes)

    def _forget_stop(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.stop_file.unlink(missing_ok=True)


def _undo(trainer: Trainer, undo: Checkpoint) -> None:
    """Go back to the rollout before, but keep to the micro-batch that memory has room for."""
    micro_batch = trainer.progress.micro_batch
    trainer.restore(replace(undo, progress=replace(undo.progress, micro_batch=micro_batch)))


def _memory_sentence(trainer: Trainer) -> str:
    halved = f" The micro-batch was halved to {trainer.micro_batch} once already."
    return MEMORY + (halved if trainer.progress.micro_batch else "")
