"""A buffer of earlier states, so that a regression method can learn from more than its latest rollout.

The states live in the estimator's tensors, which every checkpoint keeps: a resumed run draws what it would
have drawn. When the buffer is full, a stored state is replaced at random.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class Replay:
    """At most ``size`` states with their steps and prompts, kept in a mapping of tensors."""

    def __init__(self, tensors: dict[str, Tensor], size: int):
        """Bind the mapping that holds the buffer."""
        self._tensors = tensors
        self._size = size

    def __len__(self) -> int:
        """Return how many states are stored."""
        return len(self._tensors.get("replay_steps", ()))

    @property
    def prompts(self) -> Tensor:
        """Prompts (B,) of the stored states."""
        return self._tensors.get("replay_prompts", torch.zeros(0, dtype=torch.long))

    def store(self, step: int, latents: Tensor, index: Tensor, generator: torch.Generator) -> None:
        """Add states (B, C, H, W) of one step with their prompts (B,)."""
        new = {
            "replay_latents": latents.detach().cpu(),
            "replay_steps": torch.full((len(latents),), step),
            "replay_prompts": index.cpu(),
        }
        together = {key: torch.cat([self._tensors.get(key, value[:0]), value]) for key, value in new.items()}
        kept = torch.randperm(len(together["replay_steps"]), generator=generator)[: self._size].sort().values
        self._tensors.update({key: value[kept] for key, value in together.items()})

    def draw(self, count: int, generator: torch.Generator) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (step, latents (B, C, H, W), prompts (B,)) of up to ``count`` stored states, step by step."""
        chosen = torch.randperm(len(self), generator=generator)[:count]
        if not len(chosen):
            return
        steps = self._tensors["replay_steps"][chosen]
        for step in steps.unique().tolist():
            rows = chosen[steps == step]
            yield step, self._tensors["replay_latents"][rows], self._tensors["replay_prompts"][rows]
