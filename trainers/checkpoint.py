"""Resumable checkpoints: LoRA, Adam's moments, the estimator's memory and counters in one safetensors file.

Random numbers need no saving: every rollout's generators are made from the seed, the purpose and the
rollout's number. Two files are kept, so that a damaged newest one costs a few updates and not the run. Each
holds its own SHA-256: beside it, a cut between two writes would leave an intact file with another's digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainers.errors import FaultError
from trainers.run_folder import RunFolder, atomic_write

KEPT = 2
_UNKNOWN = "0" * 64  # stands in the file for its digest while that is computed


@dataclass(frozen=True)
class Progress:
    """Counters of a run at a checkpoint.

    Attributes:
        updates: Optimiser steps taken.
        rollouts: Rollouts finished ("epoch" in the metrics).
        images_sampled: Pictures sampled for training.
        evaluations: Network evaluations, in rows.
        train_seconds: Seconds spent in the training phase, over all sessions.
        used_seconds: Seconds of budget used, over all sessions.
        baseline_seconds: What the evaluation before training cost.
        estimator: Numbers that the estimator carries.
        micro_batch: Rows per pass after memory ran out once; 0 for the settings' own.
    """

    updates: int = 0
    rollouts: int = 0
    images_sampled: int = 0
    evaluations: int = 0
    train_seconds: float = 0.0
    used_seconds: float = 0.0
    baseline_seconds: float = 0.0
    estimator: dict[str, float] = field(default_factory=dict)
    micro_batch: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        progress: Counters and clocks.
        lora: The trained LoRA's tensors by name.
        optimiser: The optimiser's state by parameter number.
        trailing: The trailing rollout policy's tensors, if there is one.
        estimator: Tensors that the estimator carries.
    """

    progress: Progress
    lora: dict[str, Tensor]
    optimiser: dict[int, dict[str, Tensor]]
    trailing: dict[str, Tensor] = field(default_factory=dict)
    estimator: dict[str, Tensor] = field(default_factory=dict)

    def on_cpu(self) -> Checkpoint:
        """Return the checkpoint in main memory, from where it may travel to a process with another GPU."""

        def moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.cpu() for name, tensor in tensors.items()}

        return Checkpoint(
            self.progress,
            moved(self.lora),
            {number: moved(state) for number, state in self.optimiser.items()},
            moved(self.trailing),
            moved(self.estimator),
        )


def save_checkpoint(folder: RunFolder, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and drop the oldest.

    Raises:
        FaultError: The disk is full or the folder cannot be written; older checkpoints stay.
    """
    tensors = {f"lora/{name}": value for name, value in checkpoint.lora.items()}
    for number, state in checkpoint.optimiser.items():
        tensors |= {f"adam/{number}/{key}": value for key, value in state.items()}
    tensors |= {f"trailing/{name}": value for name, value in checkpoint.trailing.items()}
    tensors |= {f"estimator/{name}": value.contiguous() for name, value in checkpoint.estimator.items()}
    metadata = {"progress": json.dumps(asdict(checkpoint.progress)), "sha256": _UNKNOWN}
    content = save(tensors, metadata=metadata)
    path = folder.checkpoints / f"{checkpoint.progress.updates:08d}.safetensors"
    atomic_write(path, _with_digest(content, _UNKNOWN, hashlib.sha256(content).hexdigest()))
    for old in _files(folder)[KEPT:]:
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def _with_digest(content: bytes, old: str, new: str) -> bytes:
    """Replace the digest in a file's header, which comes before the tensors."""
    return content.replace(f'"sha256":"{old}"'.encode(), f'"sha256":"{new}"'.encode(), 1)


def _files(folder: RunFolder) -> list[Path]:
    """Return the checkpoints, newest first."""
    return sorted(folder.checkpoints.glob("*.safetensors"), reverse=True)


def load_latest(folder: RunFolder) -> Checkpoint | None:
    """Return the newest intact checkpoint, or None when none was ever written.

    Raises:
        FaultError: Checkpoints exist but every one of them is damaged.
    """
    files = _files(folder)
    for path in files:
        checkpoint = _load(path)
        if checkpoint is not None:
            return checkpoint
    if files:
        raise FaultError(
            f"Every checkpoint in {folder.checkpoints} is damaged, so the run cannot be resumed. Start a "
            "new run with the same settings."
        )
    return None


def _load(path: Path) -> Checkpoint | None:
    try:
        content = path.read_bytes()
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        digest = metadata["sha256"]
        if hashlib.sha256(_with_digest(content, digest, _UNKNOWN)).hexdigest() != digest:
            return None
        tensors = load(content)
        progress = Progress(**json.loads(metadata["progress"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None

    def below(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    optimiser: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam/"):
            _, number, key = name.split("/")
            optimiser.setdefault(int(number), {})[key] = tensor
    return Checkpoint(progress, below("lora/"), optimiser, below("trailing/"), below("estimator/"))


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """Return the optimiser's tensors by parameter number."""
    states = optimiser.state_dict()["state"]
    return {
        number: {key: torch.as_tensor(value).detach().clone().contiguous() for key, value in state.items()}
        for number, state in states.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, states: dict[int, dict[str, Tensor]]) -> None:
    """Put back copies of the tensors of ``optimiser_state``, which the optimiser's steps change in place."""
    full = optimiser.state_dict()
    full["state"] = {
        number: {key: value.clone() for key, value in state.items()} for number, state in states.items()
    }
    optimiser.load_state_dict(full)
