"""Where the shipped models and prompt sets are: ``RSM_ASSETS`` if set, else the repository's ``assets/``."""

from __future__ import annotations

from pathlib import Path

from trainers.paths import folder_of


def asset_root() -> Path:
    """Return the folder that holds the shipped models and prompts.

    Raises:
        InputError: ``RSM_ASSETS`` names what no folder can be called.
    """
    return folder_of("RSM_ASSETS") or Path(__file__).resolve().parents[1] / "assets"
