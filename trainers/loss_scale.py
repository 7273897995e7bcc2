"""Gradients that pass through float16 networks, kept within its narrow range, from 6e-8 to 65504.

A gradient is multiplied by a power of two where it enters the network, so that its largest entry is near one,
and divided by it where it arrives in float32. The power is found anew for every pass from the gradient
itself, on the device, so nothing has to be remembered or waited for. Should gradients grow so much on their
way that they overflow, an update is made again with less.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

LIFTS = (3, -5, -13)  # powers of two that the largest entry is near; tried one after the other


class LossScale:
    """Backward passes of float32 losses through a network; in float16, scaled."""

    def __init__(self, parameters: Iterable[nn.Parameter], dtype: torch.dtype):
        """Watch float32 parameters whose gradients come through a network of precision ``dtype``."""
        self.active = dtype == torch.float16
        self._scale: Tensor | None = None
        self._tried = 0
        if self.active:
            for parameter in parameters:
                parameter.register_hook(self._unscaled)

    def begin(self) -> None:
        """Begin an update with the largest scale."""
        self._tried = 0

    def lower(self) -> bool:
        """Take a smaller scale, because gradients were not finite; return False when there is none."""
        self._tried += 1
        return self.active and self._tried < len(LIFTS)

    def backward(self, loss: Tensor, output: Tensor) -> None:
        """Add the gradients of a loss that depends on the parameters through ``output`` only.

        Args:
            loss: Scalar, float32.
            output: The network's output in float32.
        """
        if not self.active:
            loss.backward()
            return
        (gradient,) = torch.autograd.grad(loss, output)
        self._scale = power_of_two(gradient.abs().amax(), LIFTS[self._tried])
        output.backward(gradient * self._scale)
        self._scale = None

    def _unscaled(self, gradient: Tensor) -> Tensor:
        return gradient if self._scale is None else gradient / self._scale


def power_of_two(largest: Tensor, exponent: int = LIFTS[0]) -> Tensor:
    """Return the powers of two that bring positive values near 2**exponent; 1 for zeros."""
    found = torch.frexp(largest.float()).exponent
    return torch.where(largest > 0, torch.exp2((exponent - found).clamp(-100, 100).float()), 1.0)
