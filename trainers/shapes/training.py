"""One training loop for the four pre-trainings: budget, learning rate, averaging, checkpoints, log.

The budget is a number of steps, of seconds, or both, whichever ends first; the learning rate warms up and
then decays to zero along the *budget*, so a run that is given ten minutes ends annealed after ten minutes.
Randomness is a function of (seed, step), so a resumed run sees the batches it would have seen. What is
trained, on which data and how it is saved is the caller's: modules, a loss and a snapshot function.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trainers.machine import differentiable_attention, native_bfloat16


@dataclass(frozen=True)
class Settings:
    """How long, how fast and where to pre-train.

    Args:
        out: folder for ``log.jsonl``, ``checkpoint.pt`` and the finished model in ``model/``.
        steps: optimizer steps at most; ``None`` for no limit.
        seconds: training time at most, checkpointed time included; ``None`` for no limit.
        threads: torch threads.
        device: torch device name.
        batch: examples per step.
        lr: peak learning rate of AdamW.
        seed: seeds weights and data.
        every: seconds between checkpoints and snapshots.
        pool: number of pictures encoded once for the latent models.
        vae: trained autoencoder's folder, for the latent models.
        prompts: captions on which snapshots are judged.
        check: how many of them.
        bfloat16: compute in bfloat16 on a CPU, by default where the hardware does; weights stay float32.
        start: finished model whose weights to begin from instead of random ones (clip, flow, diffusion).
    """

    out: Path
    steps: int | None = None
    seconds: float | None = None
    threads: int = 2
    device: str = "cpu"
    batch: int = 64
    lr: float = 1e-3
    seed: int = 0
    every: float = 240.0
    pool: int = 50_000
    vae: Path = Path("assets/tiny-flow/vae")
    prompts: Path = Path("assets/prompts/shapes-heldout.txt")
    check: int = 160
    bfloat16: bool = field(default_factory=native_bfloat16)
    start: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a run without an end."""
        if self.steps is None and self.seconds is None:
            raise ValueError("Give the pre-training an end: --steps, --seconds or both.")


@dataclass(frozen=True)
class Draw:
    """The randomness of one step: numpy for data, torch (CPU) for noise."""

    data: np.random.Generator
    noise: torch.Generator


WARMUP, CLIP, EMA_DECAY = 100, 1.0, 0.999


def train(
    settings: Settings,
    model: nn.Module,
    loss: Callable[[nn.Module, Draw], torch.Tensor],
    snapshot: Callable[[nn.Module, Path], dict],
) -> nn.Module:
    """Train until the budget is spent.

    Args:
        settings: budget and optimizer.
        model: holds every trained parameter; moved to the device already.
        loss: scalar loss of one batch.
        snapshot: writes the averaged model to a folder and returns numbers worth logging.

    Returns:
        The averaged model (also written to ``out/model``).
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    average = deepcopy(model).requires_grad_(False).eval()
    optimizer = _optimizer(model, settings.lr)
    step, elapsed = _resume(settings, model, average, optimizer)
    started, saved, losses = time.monotonic() - elapsed, time.monotonic(), []
    while (progress := _progress(settings, step, time.monotonic() - started)) < 1.0:
        _set_rate(optimizer, settings.lr, step, progress)
        optimizer.zero_grad(set_to_none=True)
        with differentiable_attention(torch.device(settings.device)):
            value = loss(model, draw_at(settings.seed, step))
            value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        step += 1
        _average(average, model, min(EMA_DECAY, (1 + step) / (10 + step)))
        losses.append(value.detach())
        if step % 50 == 0:
            mean = float(torch.stack(losses).mean())
            _log(settings, step=step, seconds=time.monotonic() - started, loss=mean)
            losses.clear()
        if time.monotonic() - saved > settings.every:
            _save(settings, model, average, optimizer, step, time.monotonic() - started)
            numbers = snapshot(average, settings.out / "snapshot")
            _log(settings, step=step, seconds=time.monotonic() - started, **numbers)
            saved = time.monotonic()
    _save(settings, model, average, optimizer, step, time.monotonic() - started)
    _log(settings, step=step, done=True, **snapshot(average, settings.out / "model"))
    return average


def start_from(model: nn.Module, folder: Path) -> None:
    """Copy a finished pipeline's weights into the parts of ``model``, which are named like its subfolders."""
    for name, part in model.named_children():
        finished = type(part).from_pretrained(folder, subfolder=name, torch_dtype=torch.float32)
        part.load_state_dict(finished.state_dict())


def _optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    # Small models, long runs: decay only matrices, as usual for transformers.
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True)


def _set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, progress: float) -> None:
    """Warm up over the first steps, then follow a cosine to zero along the budget."""
    rate = peak * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = rate


def draw_at(seed: int, step: int) -> Draw:
    """Return the randomness of a step."""
    return Draw(np.random.default_rng((seed, step)), torch.Generator().manual_seed(seed * 1_000_003 + step))


def _progress(settings: Settings, step: int, elapsed: float) -> float:
    by_steps = step / max(settings.steps, 1) if settings.steps is not None else 0.0
    by_seconds = elapsed / max(settings.seconds, 1e-9) if settings.seconds is not None else 0.0
    return max(by_steps, by_seconds)


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def _save(settings: Settings, model, average, optimizer, step: int, elapsed: float) -> None:
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    partial = settings.out / "checkpoint.partial"
    torch.save({**state, "step": step, "elapsed": elapsed}, partial)
    os.replace(partial, settings.out / "checkpoint.pt")


def _resume(settings: Settings, model, average, optimizer) -> tuple[int, float]:
    path = settings.out / "checkpoint.pt"
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location=settings.device, weights_only=True)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["elapsed"]


def _log(settings: Settings, **numbers: float) -> None:
    line = {key: round(value, 5) if isinstance(value, float) else value for key, value in numbers.items()}
    print(json.dumps(line), flush=True)
    with open(settings.out / "log.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
