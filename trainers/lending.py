"""Devices that are lent: on ZeroGPU, a Space's GPU exists only inside a call that borrows it. Torch-free."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

_lent: ContextVar[bool] = ContextVar("lent", default=False)


def on_zero_gpu() -> bool:
    """Whether this is a Space whose GPU is lent for a minute at a time."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def gpu_is_real() -> bool:
    """Whether a GPU that torch tells of is there; on ZeroGPU torch pretends it everywhere."""
    return _lent.get() or not on_zero_gpu()


@contextlib.contextmanager
def lent_device() -> Iterator[None]:
    """Say that a device is lent to this process while the body runs."""
    token = _lent.set(True)
    try:
        yield
    finally:
        _lent.reset(token)
