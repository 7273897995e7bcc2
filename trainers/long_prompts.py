"""A run's prompts as they are used, and what becomes of those that are longer than its model reads.

Which ones are too long is known from the tokenizer's files before anything loads, over the whole set, so that
it is told once: how many, the first lines, and what is done with them. Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.models.configured import configured
from trainers.models.readable import tokens_of
from trainers.prompt_files import PromptRow
from trainers.prompts import load_rows

REFUSE, CUT, SKIP = "refuse", "cut", "skip"
FIRST = 5  # lines that are named
_SETS = {"prompts": "training", "heldout_prompts": "held-out"}


@dataclass(frozen=True)
class LongPrompts:
    """Prompts of one set with more tokens than a model reads; none of them when ``rows`` is empty.

    Attributes:
        name: The setting that names the set.
        rows: The prompts.
        longest: Tokens of the longest of them.
        limit: Tokens that the model reads.
        total: Prompts of the whole set.
        model: What the model is called.
    """

    name: str
    rows: tuple[PromptRow, ...] = ()
    longest: int = 0
    limit: int = 0
    total: int = 0
    model: str = ""

    def sentence(self, handling: str) -> str:
        """Say how many there are, where they stand and what becomes of them."""
        few = len(self.rows) == 1
        count = f"{len(self.rows)} of the {self.total} {_SETS[self.name]} prompts {'has' if few else 'have'}"
        told = (
            f"{count} more than the {self.limit} tokens that '{self.model}' reads (up to {self.longest}; "
            f"{self._places()})"
        )
        if handling == CUT:
            return f"{told}: {'it is' if few else 'they are'} drawn from the first {self.limit}."
        if handling == SKIP:
            return f"{told}: {'it is' if few else 'they are'} left out."
        which = "it" if few else "them"
        return f"{told}; it would cut off the rest. Shorten {which}, or set long_prompts to cut or to skip."

    def _places(self) -> str:
        unit = self.rows[0].unit.lower()
        numbers = ", ".join(str(row.number) for row in self.rows[:FIRST])
        if len(self.rows) == 1:
            return f"{unit} {numbers}: '{self.rows[0].prompt[:60]}'"
        units = {"entry": "entries"}.get(unit, f"{unit}s")
        return f"{units} {numbers}{' …' if len(self.rows) > FIRST else ''}"


def find_long(config: RunConfig, name: str, rows: Sequence[PromptRow], ask: bool = False) -> LongPrompts:
    """Return the prompts of a set that are longer than a run's model reads.

    Args:
        config: The settings.
        name: ``prompts`` or ``heldout_prompts``.
        rows: The set.
        ask: Whether the tokenizer's files may be fetched from the Hub.
    """
    spec = configured(config)
    tokens = tokens_of(spec, [row.prompt for row in rows], ask)
    if tokens is None:
        return LongPrompts(name)
    pairs = zip(rows, tokens.lengths, strict=True)
    found = tuple(row for row, length in pairs if length > tokens.limit)
    longest = max(tokens.lengths, default=0)
    return LongPrompts(name, found, longest, tokens.limit, len(rows), spec.title)


def kept(config: RunConfig, rows: Sequence[PromptRow], long: LongPrompts) -> list[PromptRow]:
    """Return the rows that a run uses; fewer than there are only where its settings leave long ones out."""
    if config.long_prompts != SKIP or not long.rows:
        return list(rows)
    left_out = {row.number for row in long.rows}
    return [row for row in rows if row.number not in left_out]


def problems(config: RunConfig, rows: Sequence[PromptRow], long: LongPrompts) -> list[str]:
    """Say what keeps a set from being used; empty when nothing does."""
    if long.rows and config.long_prompts == REFUSE:
        return [long.sentence(REFUSE)]
    if rows and not kept(config, rows, long):
        return [f"{long.sentence(SKIP)} None is left; set long_prompts to cut, or shorten them."]
    return []


def used_prompts(config: RunConfig, name: str) -> list[str]:
    """Return the prompts of one set that a run uses.

    Args:
        config: The settings.
        name: ``prompts`` or ``heldout_prompts``.

    Raises:
        InputError: The file cannot be read, or holds prompts that are too long where these are refused.
    """
    rows = load_rows(getattr(config, name))
    long = find_long(config, name, rows, ask=True)
    if found := problems(config, rows, long):
        raise InputError(*found)
    return [row.prompt for row in kept(config, rows, long)]
