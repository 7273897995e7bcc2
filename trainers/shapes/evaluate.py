"""How often does a tiny pipeline draw its caption? Plain diffusers in, accuracy per category out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline

from trainers.shapes.checker import score_batch
from trainers.shapes.grammar import CATEGORIES, parse


@dataclass(frozen=True)
class Accuracy:
    """Mean exactness and partial credit over samples, exactness by category, seconds per picture."""

    exact: float
    fraction: float
    by_category: dict[str, float]
    samples: int
    seconds_per_image: float

    @property
    def numbers(self) -> dict[str, float]:
        """Return everything as one flat dictionary for a log line."""
        return {
            "exact": self.exact,
            "fraction": self.fraction,
            **self.by_category,
            "samples": self.samples,
            "ms_per_image": 1000 * self.seconds_per_image,
        }


def load_call(folder: Path) -> dict:
    """Return a folder's ``call.json``: {"load": keyword arguments, "call": keyword arguments}."""
    return json.loads((Path(folder) / "call.json").read_text())


def load(folder: Path) -> tuple[DiffusionPipeline, dict]:
    """Return a pipeline and its call arguments, both as ``call.json`` says."""
    settings = load_call(folder)
    pipeline = DiffusionPipeline.from_pretrained(folder, **settings["load"])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, settings["call"]


def draw(
    pipeline: DiffusionPipeline, call: dict, prompts: Sequence[str], seed: int, batch: int = 64
) -> np.ndarray:
    """Return one picture per prompt, uint8 (N, H, W, 3); one generator, so the order of prompts matters."""
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for start in range(0, len(prompts), batch):
        chunk = list(prompts[start : start + batch])
        images = pipeline(chunk, generator=generator, output_type="np", **call).images
        pictures.append((images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


@torch.no_grad()
def accuracy(folder: Path, prompts: Sequence[str], seeds: int = 1, **override: float) -> Accuracy:
    """Measure a pipeline folder.

    Args:
        folder: as written by ``folders.save_pipeline``.
        prompts: captions of the grammar, one picture each and seed.
        seeds: how many pictures per prompt.
        **override: call arguments to use instead of ``call.json``'s.

    Returns:
        Accuracy over ``len(prompts) * seeds`` pictures.
    """
    pipeline, call = load(folder)
    started = time.monotonic()
    pictures = np.concatenate([draw(pipeline, {**call, **override}, prompts, seed) for seed in range(seeds)])
    seconds = (time.monotonic() - started) / len(pictures)
    fractions, exacts = score_batch(pictures, list(prompts) * seeds)
    categories = np.array([parse(prompt).category for prompt in prompts] * seeds)
    by_category = {
        name: float(exacts[categories == name].mean()) for name in CATEGORIES if name in categories
    }
    return Accuracy(float(exacts.mean()), float(fractions.mean()), by_category, len(pictures), seconds)
