"""The precision in which kernels, log-ratios, rewards and the LoRA are computed: float32 at least."""

from __future__ import annotations

import torch
from torch import Tensor


def in_full_precision(values: Tensor) -> Tensor:
    """Return values in float32, or in float64 if they have it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
