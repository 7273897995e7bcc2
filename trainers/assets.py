"""Where the shipped models and prompt sets are: ``RSM_ASSETS`` if set, else the repository's ``assets/``."""

from __future__ import annotations

import os
from pathlib import Path


def asset_root() -> Path:
    """Return the folder that holds the shipped models and prompts."""
    return Path(os.environ.get("RSM_ASSETS") or Path(__file__).resolve().parents[1] / "assets")
