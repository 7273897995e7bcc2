"""From a rollout's rows to its updates: which branch is trained in which update, and what it weighs there.

A rollout is split into U updates by a random permutation, of whole trajectories where rows are steps of one,
of single branches where K of them left a state. Every branch of an update weighs alike, so a step counts by
its branches; branches of one step are first scaled by K̄/K, by which a step's weight does not grow with K.
Groups whose rewards are all equal carry no signal: rows that drop them leave them out of the mean as well,
whole trajectories and paths before they are split and single branches after.
Sources: the published programs of Flow-GRPO (arXiv 2505.05470) and RSM (arXiv 2604.17415).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainers.estimators.contract import StepRows
from trainers.method import Method
from trainers.ranks import Ranks


def split_updates(
    rows: Sequence[StepRows], method: Method, updates: int, generator: torch.Generator, ranks: Ranks
) -> list[list[StepRows]]:
    """Return the rows of each of a rollout's updates, with the weight of every branch.

    The weighted sum of an update's losses over all processes is its loss: means over branches and over anchor
    rows, of what they are in the published programs.

    Args:
        rows: This process's part of the rollout's rows.
        method: The row of the method table.
        updates: U.
        generator: Source of the permutations, in the same state in every process.
        ranks: The processes that share the rollout.
    """
    guided = [row for row in rows if not row.anchor_only]
    anchors = [row for row in rows if row.anchor_only]
    trained = _weighted(guided, method, updates, generator, ranks)
    scale = _mean_branches(guided) if method.kl == "all" else 1.0
    held = _held(anchors, scale, updates, generator)
    return [[*own, *anchored] for own, anchored in zip(trained, held, strict=True)]


def _weighted(
    rows: Sequence[StepRows], method: Method, updates: int, generator: torch.Generator, ranks: Ranks
) -> list[list[StepRows]]:
    by_path = method.drops_silent == "path" and len({(row.count, row.branches) for row in rows}) == 1
    silent = [_silent(row) for row in rows]
    if by_path:
        silent = [torch.stack(silent).all(0)] * len(rows)
    elif method.drops_silent == "none":
        silent = [torch.zeros_like(quiet) for quiet in silent]
    if _by_sample(rows):
        given = _turns_of_samples(rows, silent, updates, generator, ranks)
    elif by_path:
        given = _turns_of_paths(rows, silent, updates, generator, ranks)
    else:
        given = _turns_of_branches(rows, updates, generator)
    speaking, everything = _counts(given, silent, updates, ranks)
    scales = _scales(rows, method)
    parts: list[list[StepRows]] = [[] for _ in range(updates)]
    for row, turn, quiet, scale in zip(rows, given, silent, scales, strict=True):
        for number, part in enumerate(parts):
            chosen = (turn == number) & ~quiet if speaking[number] else turn == number
            weights = chosen.double() * (scale / max(1, speaking[number] or everything[number]))
            kept = chosen.any(1)
            if bool(kept.any()):
                mine = replace(row, weights=weights.to(row.latents), first=0, total=None)
                part.append(mine.select(kept.to(row.latents.device)))
    return parts


def _by_sample(rows: Sequence[StepRows]) -> bool:
    return bool(rows) and rows[0].sample is not None


def _turns_of_samples(
    rows: Sequence[StepRows],
    silent: Sequence[Tensor],
    updates: int,
    generator: torch.Generator,
    ranks: Ranks,
) -> list[Tensor]:
    """Return the update (B, 1) of each row: that of its trajectory; −1 for one that was left out."""
    numbers = torch.cat([row.sample.cpu() for row in rows])
    quiet = torch.cat([part.all(1) for part in silent])
    turns = _turns_of_speaking(
        int(numbers.max()) + 1 if len(numbers) else 0, numbers[~quiet], updates, generator, ranks
    )
    return [turns[row.sample.cpu()].unsqueeze(1) for row in rows]


def _turns_of_branches(rows: Sequence[StepRows], updates: int, generator: torch.Generator) -> list[Tensor]:
    """Return the update (B, K) of each branch."""
    turns = _permuted_turns(sum(row.count * row.branches for row in rows), updates, generator)
    found, begin = [], 0
    for row in rows:
        first = begin + row.first * row.branches
        found.append(turns[first : first + len(row.latents) * row.branches].view(-1, row.branches))
        begin += row.count * row.branches
    return found


def _turns_of_paths(
    rows: Sequence[StepRows],
    silent: Sequence[Tensor],
    updates: int,
    generator: torch.Generator,
    ranks: Ranks,
) -> list[Tensor]:
    """Return the update (B, K) of each branch: the same for the k-th branches of a root at all steps."""
    row, first = rows[0], rows[0].first * rows[0].branches
    numbers = first + torch.arange(silent[0].numel())[~silent[0].flatten()]
    turns = _turns_of_speaking(row.count * row.branches, numbers, updates, generator, ranks)
    return [turns[first : first + silent[0].numel()].view(-1, row.branches)] * len(rows)


def _turns_of_speaking(
    count: int, speaking: Tensor, updates: int, generator: torch.Generator, ranks: Ranks
) -> Tensor:
    """Return the update of each of everybody's samples or paths; those without a signal have none (−1).

    They leave before the others are shuffled, so that every update has as many of these, as in Flow-GRPO's
    program. Where fewer than the updates speak, none leaves.

    Args:
        count: How many there are, as far as this process knows.
        speaking: The numbers of this process's that carry a signal, some of them repeatedly.
        updates: U.
        generator: Source of the permutation.
        ranks: The processes.
    """
    told = ranks.exchange((count, speaking.tolist()))
    everything = max(number for number, _ in told)
    kept = sorted({number for _, mine in told for number in mine})
    if len(kept) < updates:
        return _permuted_turns(everything, updates, generator)
    turns = torch.full((everything,), -1)
    turns[torch.tensor(kept)] = _permuted_turns(len(kept), updates, generator)
    return turns


def _permuted_turns(count: int, updates: int, generator: torch.Generator) -> Tensor:
    """Return the update (count,) of each of so many things: a random permutation cut into equal parts."""
    turns = torch.empty(count, dtype=torch.long)
    turns[torch.randperm(count, generator=generator)] = torch.arange(count) * updates // max(1, count)
    return turns


def _silent(row: StepRows) -> Tensor:
    """Return (B, K) whether a branch has no advantage, for want of a difference in its group."""
    if row.advantages is None:
        return torch.zeros(len(row.latents), 1, dtype=torch.bool)
    return (row.advantages == 0).cpu()


def _counts(
    turns: Sequence[Tensor], silent: Sequence[Tensor], updates: int, ranks: Ranks
) -> tuple[list[int], list[int]]:
    """Return how many branches of each update carry a signal, and how many it has, in all processes."""

    def count(kept: Sequence[Tensor]) -> list[int]:
        return [sum(int((turn == number).sum()) for turn in kept) for number in range(updates)]

    everything = count(turns)
    speaking = count([turn[~quiet] for turn, quiet in zip(turns, silent, strict=True)])
    both = ranks.exchange((speaking, everything))
    return tuple([sum(column) for column in zip(*side, strict=True)] for side in zip(*both, strict=True))


def _scales(rows: Sequence[StepRows], method: Method) -> list[float]:
    """Return K̄/K of each step that branches by itself; 1 elsewhere."""
    if method.branching != "per_step":
        return [1.0] * len(rows)
    middle = _mean_branches(rows)
    return [middle / row.branches for row in rows]


def _mean_branches(rows: Sequence[StepRows]) -> float:
    """Return K̄, the mean number of branches over the steps that branch."""
    return sum(row.branches for row in rows) / max(1, len(rows))


def _held(
    anchors: Sequence[StepRows], scale: float, updates: int, generator: torch.Generator
) -> list[list[StepRows]]:
    """Return the anchor rows of each update; each weighs ``scale`` over the number of the update's."""
    turns = _permuted_turns(sum(row.count for row in anchors), updates, generator)
    parts: list[list[StepRows]] = [[] for _ in range(updates)]
    begin = 0
    for row in anchors:
        mine = turns[begin + row.first : begin + row.first + len(row.latents)]
        for number, part in enumerate(parts):
            kept = mine == number
            if bool(kept.any()):
                weight = scale / int((turns == number).sum())
                weights = row.latents.new_full((len(mine), 1), weight)
                whole = replace(row, weights=weights, first=0, total=None)
                part.append(whole.select(kept.to(row.latents.device)))
        begin += row.count
    return parts
