"""The comparison of a run, before and after: drawn batch by batch, kept on disk, scored, written down.

Every finished batch is stored at once and never drawn twice, so an interrupted comparison goes on where it
was. Pictures after training belong to one adapter; ``samples/after.json`` says which, and those of an earlier
one are removed together with what was written about them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from trainers import evaluate as ev
from trainers.baseline_clock import BaselineClock
from trainers.cautions import trained_on, which
from trainers.checkpoint import Progress
from trainers.config import RunConfig
from trainers.image_checks import check_not_black
from trainers.interruption import Interruption
from trainers.models.base import PipelineModel
from trainers.pictures import picture_name, read_pictures, save_pictures
from trainers.prompts import load_prompts
from trainers.run_folder import RunFolder, read_json, read_lines, write_json, write_lines


class Comparison:
    """Draws, scores and records the two sides of one run."""

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        scorer: ev.Scorer,
        items: Sequence[ev.Item],
        interruption: Interruption,
        tell: Callable[[str], None],
    ):
        """Bind what both sides share; ``tell`` hears a sentence after every batch."""
        self.folder = folder
        self.config = config
        self.scorer = scorer
        self.items = list(items)
        self.clock = BaselineClock(folder, len(self.items))
        self._interruption = interruption
        self._of = ""
        self._tell = tell

    def before(self, model: PipelineModel) -> ev.Scores:
        """Draw (or read back) and score the base model's pictures.

        Raises:
            StopRequested, OutOfTime: The work is to end; what was drawn stays.
        """
        self._own_baseline(model)
        pictures, started = self._draw("before", model, self.clock.drew), time.monotonic()
        check_not_black(pictures)
        scores = self.scorer.score(pictures, self.items)
        self.clock.scored(time.monotonic() - started)
        record = self.folder.samples / "before.jsonl"
        if len(read_lines(record)) != len(self.items):
            rows = zip(self.items, scores.reward, strict=True)
            write_lines(
                record,
                [
                    asdict(i) | {"reward": float(r), "picture": picture_name("before", i.index)}
                    for i, r in rows
                ],
            )
        return scores

    def after(self, model: PipelineModel, before: ev.Scores) -> tuple[ev.Scores, ev.Scores]:
        """Draw (or read back) and score the trained model's pictures.

        Returns:
            The scores before and after on equal items: all of them, or, when a stop was requested, as many
            whole prompts as were drawn in time.

        Raises:
            StopRequested, OutOfTime: The work is to end; what was drawn stays.
        """
        pictures = self._draw("after", model)
        items = self.items[: len(pictures)]
        if len(items) < len(self.items):
            before = self.scorer.score(before.pictures[: len(items)], items)
        return before, self.scorer.score(pictures, items)

    def forget_others_than(self, updates: int) -> None:
        """Remove pictures and numbers of another update's adapter, or of another baseline's prompts."""
        owner, wanted = self.folder.samples / "after.json", {"updates": updates, "of": self._of}
        known = read_json(owner) or {}
        if wanted == {"of": self._of} | known:  # an earlier version's run does not say of what
            return
        old = (self.folder.samples / "after").glob("*.png")
        for path in (self.folder.report, self.folder.pairs, *old):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        write_json(owner, wanted)

    def _own_baseline(self, model: PipelineModel) -> None:
        """Remove base images that were drawn for other prompts, seeds or sampling settings than these.

        What they were drawn for is written down before the first one is. Runs of earlier versions have only
        the rewards' file, which names prompts and seeds.
        """
        owner, record = self.folder.samples / "baseline.json", self.folder.samples / "before.jsonl"
        sampling = model.sampling_record(self.config.guidance_scale)
        wanted = {"items": [[item.prompt, item.seed] for item in self.items], "sampling": sampling}
        wanted = json.loads(json.dumps(wanted, default=str))
        known = read_json(owner)
        lines = [[line.get("prompt"), line.get("seed")] for line in read_lines(record)]
        same = known == wanted if known is not None else lines in ([], wanted["items"])
        if not same:
            for path in (record, *(self.folder.samples / "before").glob("*.png")):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        if known != wanted:
            write_json(owner, wanted)
        self._of = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()

    def _draw(
        self, side: str, model: PipelineModel, count: Callable[[int, float], None] | None = None
    ) -> Tensor:
        """Draw what is not there yet; ``count`` hears the pictures and the seconds of every batch."""
        parts = self._stored(side)
        done = sum(map(len, parts))
        drawn = ev.sample_items(model, self.items[done:], self.config.eval_batch, self.config.guidance_scale)
        began = time.monotonic()
        with contextlib.closing(drawn):
            while done < len(self.items) and not self._drawn_enough(done):
                pictures = next(drawn)
                if count:
                    count(len(pictures), time.monotonic() - began)
                began = time.monotonic()
                save_pictures(self.folder, side, pictures, done)
                parts.append(pictures)
                done += len(pictures)
                self._tell(f"Drawing pictures: {done} of {len(self.items)}.")
        samples = self.config.eval_samples_per_prompt
        return torch.cat(parts)[: done - done % samples]

    def _drawn_enough(self, done: int) -> bool:
        """Whether a stopped run's comparison may end: it has some prompts and has had its time."""
        return done >= 2 * self.config.eval_samples_per_prompt and self._interruption.enough()

    def _stored(self, side: str) -> list[Tensor]:
        """Return the whole batches, from the first on, that are on disk and intact."""
        parts: list[Tensor] = []
        for batch in ev.batches(self.items, self.config.eval_batch):
            pictures = read_pictures(self.folder, [picture_name(side, item.index) for item in batch])
            if pictures is None:
                break
            parts.append(pictures)
        return parts

    def write(self, before: ev.Scores, after: ev.Scores) -> None:
        """Write ``pairs.jsonl``: one line for each picture of ``after``."""
        write_lines(
            self.folder.pairs,
            [
                {
                    "index": item.index,
                    "prompt": item.prompt,
                    "seed": item.seed,
                    "reward_before": float(before.reward[i]),
                    "reward_after": float(after.reward[i]),
                    "before": picture_name("before", item.index),
                    "after": picture_name("after", item.index),
                }
                for i, item in enumerate(self.items[: len(after.pictures)])
            ],
        )

    def report(self, model: PipelineModel, progress: Progress, before: ev.Scores, after: ev.Scores) -> dict:
        """Return the before/after statistics, without the session's clock."""
        prompts = [item.prompt for item in self.items[: len(after.pictures)]]
        return {
            "model": self.config.model,
            "reward": self.config.reward,
            "estimator": self.config.estimator,
            "seed": self.config.seed,
            "before": ev.summarise(before, prompts),
            "after": ev.summarise(after, prompts),
            "paired": ev.paired(before.reward, after.reward, prompts),
            "drift": ev.drift(model, list(dict.fromkeys(prompts)), self.config.seed),
            "updates": progress.updates,
            "images_sampled": progress.images_sampled,
            "network_evaluations": progress.evaluations,
            "prompts": len(dict.fromkeys(prompts)),
            "prompts_trained_on": trained_on(load_prompts(self.config.prompts), prompts),
            "sampling": model.sampling_record(self.config.guidance_scale),
            "train_seconds": progress.train_seconds,
        }


def verdict(report: dict) -> str:
    """Say in one line what a report found."""
    pairs, before, after = report["paired"], report["before"]["reward"], report["after"]["reward"]
    return (
        f"Reward {before['mean']:.3f} → {after['mean']:.3f} on {pairs['n']} {which(report, 'pictures')} "
        f"(gain {pairs['mean_gain']:+.3f}, z = {pairs['z']:.1f}, better on {pairs['win_rate']:.0%})."
    )
