"""Importing large libraries in less time.

The engine's imports make some 440,000 objects that stay as long as the process. The garbage collector's
passes over them took a quarter of a short run's time (docs/LOG.md, 2026-11-28).
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Import within this, once: the collector rests, and never looks at what is there afterwards.

    Garbage that is there already is never freed either, so nothing large may have been let go just before.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
