"""What the published programs train a row with, for docs/DEFAULTS.md. Torch-free.

The entries are in ``published_flow``, ``published_forward`` and ``published_diffusion``, one per row and home
family, in the names and units of ``RunConfig`` and ``Method``. Public repositories were read for them and
nothing was executed; where a number was converted, a note says how. A setting that was not found is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainers.method import frozen

# Kinds of rewards that begin with settings of their own: those of taste and all others, those like GenEval
# (``RewardSpec.compositional``), written text, and statistics of pixels (``presets.PIXEL_REWARDS``).
KINDS = ("taste", "GenEval", "OCR", "pixels")
Values = tuple[Any, ...]  # a setting, one value per kind


@dataclass(frozen=True)
class Published:
    """One row on one family, as its authors, or those who reproduce it, run it.

    Attributes:
        method: A row of the method table.
        family: ``flow`` or ``diffusion``.
        source: Paper, public program and its files.
        settings: Fields of ``RunConfig`` for rewards of taste, such as PickScore or HPSv2.
        compositional: Those that differ for rewards like GenEval.
        ocr: Those that differ for written text.
        row: Fields of ``Method``.
        targets: Names of the modules that get a LoRA; empty where none does.
        words: Field of ``RunConfig`` → what has no counterpart in our units, or more about the value.
        notes: Sentences about units, and about what no setting holds.
    """

    method: str
    family: str
    source: str
    settings: Mapping[str, Any] = field(default_factory=frozen)
    compositional: Mapping[str, Any] = field(default_factory=frozen)
    row: Mapping[str, Any] = field(default_factory=frozen)
    targets: tuple[str, ...] = ()
    ocr: Mapping[str, Any] = field(default_factory=frozen)
    words: Mapping[str, str] = field(default_factory=frozen)
    notes: tuple[str, ...] = ()

    def values(self, name: str) -> Values:
        """Return a published setting, one value per kind of reward; None where there is no number."""
        first = self.settings.get(name)
        return first, self.compositional.get(name, first), self.ocr.get(name, first), first

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of all settings of ``RunConfig`` about which something is known."""
        return tuple(dict.fromkeys((*self.settings, *self.compositional, *self.ocr, *self.words)))
