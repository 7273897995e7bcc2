"""A look at a few held-out prompts during training: the same prompts and seeds every time, scored alike.

The prompts and seeds are the comparison's own, so the pictures show early what it will measure. They are
drawn by the policy's sampling network and not by the plain pipeline, to cost little. Nothing random is
shared with training: a run with probes learns bit for bit what it would learn without them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.config import RunConfig
from trainers.core.transition import mean as step_mean
from trainers.evaluate import Item, Scorer, Scores
from trainers.image_checks import check_decoded
from trainers.loop import Trainer
from trainers.machine import decoding_batch
from trainers.models.base import Conditions
from trainers.parallel import map_chunks
from trainers.pictures import picture_name, save_pictures
from trainers.run_folder import RunFolder, append_line, write_lines
from trainers.samplers.kernels import ode

SAMPLES = 2  # the fewest that show whether pictures of one prompt become alike
_DIGITS = 6


def probe_items(items: Sequence[Item], samples: int, prompts: int) -> list[Item]:
    """Choose prompts evenly from the comparison's, with their first ``SAMPLES`` pictures.

    Args:
        items: The comparison's pictures, prompt by prompt.
        samples: Pictures per prompt among ``items``.
        prompts: How many prompts; fewer when the comparison has fewer.
    """
    total = len(items) // samples
    count = min(prompts, total)
    firsts = [i * total // count * samples for i in range(count)]
    return [items[first + sample] for first in firsts for sample in range(SAMPLES)]


class Probes:
    """The probes of one run, in ``probes.jsonl`` and ``samples/probe-UPDATE``."""

    def __init__(self, folder: RunFolder, config: RunConfig, scorer: Scorer, items: Sequence[Item]):
        """Bind a run.

        Args:
            folder: The run.
            config: Its settings; ``probe_every`` 0 turns probes off.
            scorer: What the comparison is judged by.
            items: The comparison's pictures.
        """
        self._folder = folder
        self._every = config.probe_every
        self._scorer = scorer
        self._items = probe_items(items, config.eval_samples_per_prompt, config.probe_prompts)
        self._conditions: Conditions | None = None
        self._done: set[int] = set()
        self._seconds = 0.0

    def forget_after(self, updates: int) -> None:
        """Drop the lines of updates that a checkpoint knows nothing of, and take up those that stay."""
        lines = [line for line in self._folder.read_probes() if line.get("step", 0) <= updates]
        if self._folder.probes.exists():
            write_lines(self._folder.probes, lines)
        self._done = (
            {line["step"] // self._every for line in lines if "step" in line} if self._every else set()
        )

    def due(self, updates: int) -> bool:
        """Whether a look is due after this many updates: at once, then every ``probe_every``."""
        return bool(self._every) and updates // self._every not in self._done

    def seconds_due(self, updates: int) -> float:
        """Return what the next look will take if it is due now, in seconds."""
        return self._seconds if self.due(updates) else 0.0

    def look(self, trainer: Trainer, used_seconds: float) -> None:
        """Draw, score and record the prompts if a look is due.

        Raises:
            StopRequested, OutOfTime: The work is to end; nothing is recorded then.
            FaultError: A reward failed or the disk is full.
        """
        updates = trainer.progress.updates
        if not self.due(updates):
            return
        started = time.monotonic()
        scores = self._scorer.score(self._draw(trainer), self._items)
        names = self._save(updates, scores)
        self._seconds = time.monotonic() - started
        line = {"step": updates, "seconds": used_seconds, "cost": self._seconds, **self._record(scores)}
        append_line(self._folder.probes, {**line, "pictures": names})
        self._done.add(updates // self._every)

    @torch.no_grad()
    def _draw(self, trainer: Trainer) -> Tensor:
        """Return (N, 3, H, W) uint8 pictures of the policy's deterministic sampling."""
        policy, model = trainer.policy, trainer.policy.model
        if self._conditions is None:
            self._conditions = model.encode([item.prompt for item in self._items])
        schedule = model.schedule(int(model.call["num_inference_steps"]))
        seeds = [torch.Generator("cpu").manual_seed(item.seed) for item in self._items]
        shape = (1, *model.latent_shape)
        latents = torch.cat([torch.randn(shape, generator=seed) for seed in seeds]).to(model.device)
        counted = policy.evaluations  # "network evaluations" are those of training
        try:
            with policy.as_shipped():
                for step in range(schedule.steps):
                    output = policy.sample_output(latents, schedule, step, self._conditions)
                    latents = step_mean(ode(schedule, step), latents, output)
        finally:
            policy.evaluations = counted
        chunks = latents.split(decoding_batch(latents.device, policy.micro_batch))
        pictures = torch.cat(map_chunks(model.decode, chunks, latents.device))
        check_decoded(pictures, latents)
        return (pictures * 255).round().to(torch.uint8).cpu()

    def _save(self, updates: int, scores: Scores) -> list[str]:
        """Keep each prompt's first picture: enough to look at, and few files in a long run."""
        side = f"probe-{updates:06d}"
        save_pictures(self._folder, side, scores.pictures[::SAMPLES])
        return [picture_name(side, number) for number in range(len(self._items) // SAMPLES)]

    def _record(self, scores: Scores) -> dict:
        return {
            "prompts": [item.prompt for item in self._items[::SAMPLES]],
            "reward": _rounded(scores.reward),
            "others": {name: _rounded(values) for name, values in scores.others.items()},
            "diversity": scores.diversity,
        }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, _DIGITS) for value in values.double().tolist()]
