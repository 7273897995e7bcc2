"""Encoded prompts, as every family's network is conditioned on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Conditions:
    """Encoded prompts; row i belongs to prompt i.

    Attributes:
        embeds: (P, L, D) token embeddings.
        pooled: (P, D') pooled embeddings, or None for families without them.
        negative_embeds: (1, L, D) embeddings of the empty prompt.
        negative_pooled: (1, D') or None.
        mask: (P, L) which tokens count, or None where all do.
        negative_mask: (1, L) or None.
        home: Where selected rows are moved to; None leaves them where they are.
        places: (N,) row of each of N prompts, where only some of them are held; None when all are.
    """

    embeds: Tensor
    pooled: Tensor | None
    negative_embeds: Tensor
    negative_pooled: Tensor | None
    mask: Tensor | None = None
    negative_mask: Tensor | None = None
    home: torch.device | None = None
    places: Tensor | None = None

    def select(self, index: Tensor | slice) -> Conditions:
        """Return the conditions of the rows named by ``index`` (B,)."""
        if isinstance(index, Tensor):
            index = index.to(self.embeds.device)
        if self.places is not None:
            index = self.places[index]

        def rows(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[index]

        chosen = replace(
            self, embeds=rows(self.embeds), pooled=rows(self.pooled), mask=rows(self.mask), places=None
        )
        return chosen if self.home is None else replace(chosen.to(self.home), home=None)

    def only(self, index: Tensor) -> Conditions:
        """Return the conditions with the prompts ``index`` (B,) held at home, under their own numbers.

        Rows that wait elsewhere then travel once, and not at every pass; where all are at home, all stay.
        """
        if self.home is None:
            return self
        kept = index.cpu().unique()
        places = torch.full((len(self.embeds),), len(kept))  # past the end, so that a wrong number is refused
        places[kept] = torch.arange(len(kept))
        return replace(self.select(kept), places=places.to(self.home))

    def to(self, where: torch.dtype | torch.device) -> Conditions:
        """Return the conditions in another precision or on another device; masks keep their type."""

        def moved(name: str, part: Tensor | None) -> Tensor | None:
            keeps = part is None or (isinstance(where, torch.dtype) and name.endswith("mask"))
            return part if keeps else part.to(where)

        return replace(self, **{name: moved(name, part) for name, part in self._tensors().items()})

    def guided(self) -> Conditions:
        """Return the 2B rows of classifier-free guidance: first the empty prompt, then the prompts."""
        rows = len(self.embeds)

        def both(negative: Tensor | None, part: Tensor | None) -> Tensor | None:
            return None if part is None else torch.cat([negative.expand(rows, *negative.shape[1:]), part])

        return replace(
            self,
            embeds=both(self.negative_embeds, self.embeds),
            pooled=both(self.negative_pooled, self.pooled),
            mask=both(self.negative_mask, self.mask),
        )

    def padded(self, length: int) -> Conditions:
        """Return the conditions with masked zeros up to ``length`` tokens; a mask must be there."""

        def wide(part: Tensor) -> Tensor:
            missing = length - part.shape[1]
            return functional.pad(part, (0, 0, 0, missing) if part.ndim == 3 else (0, missing))

        names = ("embeds", "negative_embeds", "mask", "negative_mask")
        return replace(self, **{name: wide(getattr(self, name)) for name in names})

    def _tensors(self) -> dict[str, Tensor | None]:
        names = (item.name for item in fields(self) if item.name not in ("home", "places"))
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Chosen:
    """Rows of conditions by their prompts' numbers, gathered only when a pass selects some of them.

    Attributes:
        source: The conditions of all prompts.
        index: (B,) prompt of each row.
    """

    source: Conditions
    index: Tensor

    def select(self, rows: Tensor | slice) -> Conditions:
        """Return the conditions of some of the rows."""
        return self.source.select(self.index[rows])


def joined(parts: Sequence[Conditions]) -> Conditions:
    """Return the rows of several conditions of one model, one after the other."""
    first = parts[0]
    if len({part.embeds.shape[1] for part in parts}) > 1:
        longest = max(part.embeds.shape[1] for part in parts)
        parts = [part.padded(longest) for part in parts]
        first = parts[0]

    def rows(name: str) -> Tensor | None:
        return None if getattr(first, name) is None else torch.cat([getattr(part, name) for part in parts])

    return replace(first, embeds=rows("embeds"), pooled=rows("pooled"), mask=rows("mask"))
