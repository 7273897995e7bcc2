"""From rows to the loss: applies a method's row of weights and trust regions to network outputs.

All formulas live in ``trainers.core``; this module only chooses among them by the names in the row. The KL
term is β·λ‖o_θ − o_ref‖², with λ of the stochastic kernel at the row's step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.config import RunConfig
from trainers.core import loss as core
from trainers.core.schedule import Schedule
from trainers.core.weights import StepWeights, regression_weight, zeroth_order_weights
from trainers.errors import InputError
from trainers.estimators.contract import StepRows
from trainers.methods import Method
from trainers.samplers.kernels import stochastic_kernel


@dataclass(frozen=True)
class RowLoss:
    """Loss and diagnostics of B rows of one step.

    Attributes:
        loss: (B,) with gradient.
        kl: (B,) λ‖o_θ − o_ref‖², without gradient; zeros where the reference was not needed.
        clip_fraction: Share of branches cut off by the trust region.
        ratio: Mean importance ratio exp(ℓ).
    """

    loss: Tensor
    kl: Tensor
    clip_fraction: float
    ratio: float


class Objective:
    """The loss of one method on one schedule."""

    def __init__(self, method: Method, config: RunConfig, schedule: Schedule):
        """Work out every step's scalars once."""
        self.method = method
        self.config = config
        kernel = stochastic_kernel(schedule.family)
        self._kernels = [kernel(schedule, step, config.noise_level) for step in range(schedule.steps)]
        noisy = [abs(c.slope) for c in self._kernels if c.std > 0]
        self.mean_slope = sum(noisy) / len(noisy)
        if method.branching == "per_step":
            self._require_noise(config.branches)
        self._falls = (schedule.noise[:-1] - schedule.noise[1:]).tolist()

    def _require_noise(self, branches: Sequence[int]) -> None:
        silent = [i for i, count in enumerate(branches) if count and self._kernels[i].std == 0]
        if silent:
            raise InputError(
                f"'branches' asks for branches at step {silent[0]}, where this sampler injects no noise, so "
                "they would all be alike; put 0 there."
            )

    @property
    def needs_reference(self) -> bool:
        """Whether o_ref enters the loss."""
        return self.method.anchor == "ref" or (self.method.kl != "none" and self.config.kl_weight > 0)

    def weights(self, step: int) -> StepWeights:
        """Return the zeroth-order scalars of a step."""
        return zeroth_order_weights(
            self.method.weight,
            self.method.trust_region,
            self._kernels[step],
            self._falls[step],
            self.mean_slope,
        )

    def __call__(self, rows: StepRows, output: Tensor, old: Tensor, reference: Tensor | None) -> RowLoss:
        """Return the loss of rows of one step.

        Args:
            rows: B rows.
            output: (B, C, H, W) o_θ, with gradient.
            old: (B, C, H, W) output of the policy that made the rollout.
            reference: (B, C, H, W) output of the base model; may be None unless ``needs_reference``.
        """
        if rows.guidance is not None:
            return self._regression(rows, output, old, reference)
        total, clipped, ratio = torch.zeros(len(output), device=output.device), 0.0, 1.0
        if rows.advantages is not None:
            total, clipped, ratio = self._zeroth_order(rows, output, old)
        kl = torch.zeros(len(output), device=output.device)
        if reference is not None:
            kl = self._natural_weight(rows.step) * core.squared_distance(output, reference)
            if self.method.kl != "none":
                total = total + self.config.kl_weight * kl
        return RowLoss(total, kl.detach(), clipped, ratio)

    def _zeroth_order(self, rows: StepRows, output: Tensor, old: Tensor) -> tuple[Tensor, float, float]:
        weights = self.weights(rows.step)
        ratio = core.log_ratio(output - old, rows.noise, weights.slope)
        scaled = weights.ratio_scale * ratio
        form = core.clipped_ratio if self.method.objective == "ratio" else core.clipped_matching
        losses = form(scaled, rows.advantages, self.config.clip_range) / weights.ratio_scale
        share = core.clipped_share(scaled.detach(), rows.advantages, *self._clip_bounds())
        total = weights.loss_scale * losses.mean(1)
        return total, float(share), float(ratio.detach().exp().mean())

    def _regression(self, rows: StepRows, output: Tensor, old: Tensor, reference: Tensor | None) -> RowLoss:
        anchor = reference if self.method.anchor == "ref" else old
        weight = regression_weight(self.method.weight, self._kernels[rows.step])
        total = weight * core.matching(output, anchor, rows.guidance)
        if self.method.trust_region == "old" and self.config.old_weight > 0:
            total = total + self.config.old_weight * core.squared_distance(output, old)
        kl = torch.zeros(len(output), device=output.device)
        if reference is not None:
            kl = self._natural_weight(rows.step) * core.squared_distance(output.detach(), reference)
        return RowLoss(total, kl, 0.0, 1.0)

    def _clip_bounds(self) -> tuple[float, float]:
        """Return the log-ratios at which branches with positive and negative advantage stop pulling."""
        clip = self.config.clip_range
        if self.method.objective != "ratio":
            return clip, -clip
        return math.log1p(clip), math.log1p(-clip) if clip < 1 else -math.inf

    def _natural_weight(self, step: int) -> float:
        coefficients = self._kernels[step]
        return coefficients.natural_weight if coefficients.std > 0 else 0.0
