"""One generator per purpose and rollout, made from the run's seed alone; the global generator is never used.

Because nothing is carried from rollout to rollout, a resumed run draws exactly what an uninterrupted one
would have drawn, without saving any generator.
"""

from __future__ import annotations

import hashlib

import torch


def seed_for(seed: int, purpose: str, number: int = 0) -> int:
    """Return a 63-bit seed that depends on all three arguments."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_for(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """Return a fresh CPU generator for a purpose, for example ``transitions`` of rollout 7."""
    return torch.Generator("cpu").manual_seed(seed_for(seed, purpose, number))


def prompt_batch(seed: int, rollout: int, count: int, size: int) -> list[int]:
    """Return the prompt numbers of a rollout: endless shuffled passes over ``count`` prompts.

    Args:
        seed: The run's seed.
        rollout: Number of the rollout, from 0.
        count: Number of prompts in the set.
        size: Prompts per rollout; larger sets than ``count`` repeat.
    """
    chosen: list[int] = []
    position = rollout * size
    while len(chosen) < size:
        turn, offset = divmod(position + len(chosen), count)
        order = torch.randperm(count, generator=generator_for(seed, "prompts", turn)).tolist()
        chosen += order[offset : offset + size - len(chosen)]
    return chosen
