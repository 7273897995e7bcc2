"""One stochastic step x' ~ N(μ, σ² I) whose mean is affine in the state and in the network's output.

    μ = c·x + k·o,        k = ∂μ/∂o,        σ ≥ 0

Three scalars describe a step, so kernels (``trainers.samplers.kernels``) only compute scalars and every
tensor operation on a step lives here. Means over elements (not sums) are taken throughout: that is what
the field's clip ranges and KL weights assume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.core.share import WHOLE, Share


@dataclass(frozen=True)
class Coefficients:
    """One step's kernel: μ = ``state``·x + ``output``·o with standard deviation ``std``.

    Attributes:
        state: c, the coefficient of x.
        output: k = ∂μ/∂o.
        std: σ; 0 for a deterministic step.
    """

    state: float
    output: float
    std: float

    @property
    def natural_weight(self) -> float:
        """λ = k²/(2σ²): λ‖Δo‖² is the exact KL between two such kernels, per element."""
        return self.output**2 / (2.0 * self.std**2)

    @property
    def slope(self) -> float:
        """k/σ, the factor of ⟨ε, Δo⟩ in the log-ratio."""
        return self.output / self.std


@dataclass(frozen=True)
class Transition:
    """A drawn step: mean μ, standard deviation σ, noise ε and sample, tensors (B, C, H, W)."""

    mean: Tensor
    std: float
    noise: Tensor
    sample: Tensor


def mean(coefficients: Coefficients, latents: Tensor, output: Tensor) -> Tensor:
    """Return μ (B, C, H, W) of a step."""
    return coefficients.state * latents + coefficients.output * output


def draw(coefficients: Coefficients, latents: Tensor, output: Tensor, noise: Tensor) -> Transition:
    """Return the step drawn with a given standard-normal ``noise`` that broadcasts with the latents."""
    center = mean(coefficients, latents, output)
    return Transition(center, coefficients.std, noise, center + coefficients.std * noise)


def log_prob(sample: Tensor, center: Tensor, std: float) -> Tensor:
    """Return the (B,) log-density of N(μ, σ² I) at ``sample``, averaged over elements."""
    squared = (sample - center) ** 2 / (2.0 * std**2)
    return -(squared + math.log(std) + 0.5 * math.log(2.0 * math.pi)).flatten(1).mean(1)


def noise_like(latents: Tensor, branches: int, generator: torch.Generator, share: Share = WHOLE) -> Tensor:
    """Draw (B, K, C, H, W) standard-normal noise on the generator's device, moved to the latents'.

    Args:
        latents: (B, C, H, W), this process's rows.
        branches: K.
        generator: Source of the noise.
        share: Which part of the batch the rows are.
    """
    shape = (latents.shape[0], branches, *latents.shape[1:])
    return share.normal(shape, generator, latents.dtype, latents.device)
