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
    pull: float = 0.0
    guided_rows: int = 0
    clipped: float = 0.0
    ratio: float = 0.0
    branches: float = 0.0

    @property
    def mean_kl(self) -> float:
        """Mean over the rows that were compared with the base model."""
        return self.kl / max(1, self.kl_rows)

    @property
    def mean_pull(self) -> float:
        """Mean squared distance to the policy that W2 holds the trained one near, over rows with guidance."""
        return self.pull / max(1, self.guided_rows)

    @property
    def clip_fraction(self) -> float:
        """Share of the pulling branches."""
        return self.clipped / max(1.0, self.branches)

    @property
    def mean_ratio(self) -> float:
        """Mean over the pulling branches; 1 where the row has no ratio."""
        return self.ratio / self.branches if self.branches else 1.0


class Tally:
    """Collects what one update's micro-batches say."""

    def __init__(self):
        """Begin with nothing."""
        self._found: list[Tensor] = []
        self._rows: list[tuple[int, bool, bool]] = []

    def add(self, rows: StepRows, loss: Tensor, result: RowLoss, has_reference: bool) -> None:
        """Take up the rows of one step of a micro-batch.

        Args:
            rows: The rows.
            loss: Their weighted loss, a scalar.
            result: What the objective said.
            has_reference: Whether the rows were compared with the base model.
        """
        sums = result.kl.sum(), result.pull.sum(), result.clipped, result.ratios, result.branches
        parts = [part.detach().to(loss) for part in (loss, *sums)]
        self._found.append(torch.stack(parts))
        self._rows.append((len(rows.latents), has_reference, not rows.anchor_only))

    def sums(self, ranks: Ranks) -> Sums:
        """Return the sums over everybody's micro-batches; this is where the device is waited for."""
        told = ranks.exchange(astuple(self._own()))
        return Sums(*(sum(column) for column in zip(*told, strict=True)))

    def _own(self) -> Sums:
        found = torch.stack(self._found).tolist() if self._found else []
        loss = kl = pull = clipped = ratio = branches = 0.0
        kl_rows = guided_rows = 0
        for (count, has_reference, guided), values in zip(self._rows, found, strict=True):
            loss += values[0]
            if has_reference:
                kl, kl_rows = kl + values[1], kl_rows + count
            if guided:
                guided_rows += count
                pull, clipped = pull + values[2], clipped + values[3]
                ratio, branches = ratio + values[4], branches + values[5]
        return Sums(loss, kl, kl_rows, pull, guided_rows, clipped, ratio, branches)
