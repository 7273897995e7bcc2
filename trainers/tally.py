"""Sums over the rows of one update, left on the device until the update ends: nothing waits in between."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from trainers.estimators.contract import StepRows
from trainers.objective import RowLoss
from trainers.ranks import Ranks


@dataclass(frozen=True)
class Sums:
    """Loss, and sums of what the metrics are means of, over the rows of one update."""

    loss: float = 0.0
    kl: float = 0.0
    kl_rows: int = 0
    clipped: float = 0.0
    ratio: float = 0.0
    guided_rows: int = 0

    @property
    def mean_kl(self) -> float:
        """Mean over the rows that were compared with the base model."""
        return self.kl / max(1, self.kl_rows)

    @property
    def clip_fraction(self) -> float:
        """Mean over the rows that carry guidance."""
        return self.clipped / max(1, self.guided_rows)

    @property
    def mean_ratio(self) -> float:
        """Mean over the rows that carry guidance."""
        return self.ratio / max(1, self.guided_rows)


class Tally:
    """Collects what one update's micro-batches say."""

    def __init__(self):
        """Begin with nothing."""
        self._found: list[Tensor] = []
        self._rows: list[tuple[int, bool, bool]] = []

    def add(self, rows: StepRows, loss: Tensor, result: RowLoss, has_reference: bool) -> None:
        """Take up a micro-batch.

        Args:
            rows: Its rows.
            loss: Its weighted loss, a scalar.
            result: What the objective said.
            has_reference: Whether the rows were compared with the base model.
        """
        parts = (loss.detach(), result.kl.sum(), result.clip_share, result.mean_ratio)
        self._found.append(torch.stack(parts))
        self._rows.append((len(rows.latents), has_reference, not rows.anchor_only))

    def sums(self, ranks: Ranks) -> Sums:
        """Return the sums over everybody's micro-batches; this is where the device is waited for."""
        told = ranks.exchange(astuple(self._own()))
        return Sums(*(sum(column) for column in zip(*told, strict=True)))

    def _own(self) -> Sums:
        found = torch.stack(self._found).tolist() if self._found else []
        loss = kl = clipped = ratio = 0.0
        kl_rows = guided_rows = 0
        for (count, has_reference, guided), values in zip(self._rows, found, strict=True):
            loss += values[0]
            if has_reference:
                kl, kl_rows = kl + values[1], kl_rows + count
            if guided:
                clipped, ratio = clipped + values[2] * count, ratio + values[3] * count
                guided_rows += count
        return Sums(loss, kl, kl_rows, clipped, ratio, guided_rows)
