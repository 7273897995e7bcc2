"""The part of a batch that one of several processes works on.

Rows are dealt out in order: process r of R holds the r-th of R equal blocks. Every process draws the random
numbers of the whole batch and keeps its own, so the batch is the same however many share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Block ``rank`` of ``ranks`` equal blocks of a batch; the whole batch by default."""

    rank: int = 0
    ranks: int = 1

    def rows(self, total: int) -> slice:
        """Return which of ``total`` rows are this process's; blocks differ by one row at most."""
        return slice(self.rank * total // self.ranks, (self.rank + 1) * total // self.ranks)

    def normal(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """Draw standard-normal numbers for everybody's rows and return this process's.

        Args:
            shape: Of this process's part, (B, …); the others' parts have the same.
            generator: Every process's generator must be in the same state.
            dtype: Of the numbers.
            device: Where they go, whatever device draws them; the generator's when None.
        """
        whole, source = (self.ranks * shape[0], *shape[1:]), generator.device
        device = device or source
        # From pinned memory numbers travel to a GPU while it works and while the next ones are drawn.
        pinned = source.type == "cpu" and device.type == "cuda"
        drawn = torch.randn(whole, generator=generator, dtype=dtype, device=source, pin_memory=pinned)
        return drawn[self.rows(whole[0])].to(device, non_blocking=True)


WHOLE = Share()
