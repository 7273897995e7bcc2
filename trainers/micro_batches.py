"""Rows of several sampling steps that pass through the network together.

A network call costs much besides its rows, and a rollout that is split into updates leaves few rows at each
step. What follows the network works step by step again, since a step's kernel and weights are scalars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainers.estimators.contract import StepRows


@dataclass(frozen=True)
class MicroBatch:
    """Rows that pass through the network at once.

    Attributes:
        parts: The rows of each step, in order.
    """

    parts: tuple[StepRows, ...]

    @cached_property
    def latents(self) -> Tensor:
        """(B, C, H, W) the states of all rows."""
        return torch.cat([rows.latents for rows in self.parts])

    @cached_property
    def prompt_index(self) -> Tensor:
        """(B,) the index of each row's prompt in the task."""
        return torch.cat([rows.prompt_index for rows in self.parts])

    @cached_property
    def step(self) -> int | Tensor:
        """The rows' step, or (B,) the step of each where they differ."""
        if len({rows.step for rows in self.parts}) == 1:
            return self.parts[0].step
        return torch.cat([torch.full((len(rows.latents),), rows.step) for rows in self.parts])

    @property
    def anchor_only(self) -> bool:
        """Whether all rows only hold the policy near the base model."""
        return all(rows.anchor_only for rows in self.parts)

    def split(self, values: Tensor | None) -> list[Tensor | None]:
        """Return (B, …) values part by part; None for each where there are none."""
        if values is None:
            return [None] * len(self.parts)
        return list(values.split([len(rows.latents) for rows in self.parts]))


def pack(rows: Sequence[StepRows], size: int, mixed: bool = True) -> list[MicroBatch]:
    """Return rows in micro-batches of ``size`` states, the last one with what is left.

    Args:
        rows: The rows of each step.
        size: Most states of a micro-batch.
        mixed: Whether steps may share one; gradients in float16 want one scale a step.
    """
    if not mixed:
        return [batch for step in rows for batch in pack([step], size)]
    found: list[list[StepRows]] = []
    free = 0
    for step in rows:
        start, count = 0, len(step.latents)
        while start < count:
            if free == 0:
                found.append([])
                free = size
            taken = min(free, count - start)
            found[-1].append(step.select(slice(start, start + taken)))
            start, free = start + taken, free - taken
    return [MicroBatch(tuple(parts)) for parts in found]
