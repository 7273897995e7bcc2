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
from trainers.core.parameterization import clean_slope
from trainers.core.schedule import Schedule
from trainers.core.weights import (
    StepWeights,
    forward_slope,
    guidance_strength,
    regression_weight,
    schedule_means,
    zeroth_order_weights,
)
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
        clip_share: Scalar share of branches cut off by the trust region.
        mean_ratio: Scalar mean importance ratio exp(ℓ).
    """

    loss: Tensor
    kl: Tensor
    clip_share: Tensor
    mean_ratio: Tensor

    @property
    def clip_fraction(self) -> float:
        """The share of branches cut off, waiting for the device to know it."""
        return float(self.clip_share)

    @property
    def ratio(self) -> float:
        """The mean importance ratio, waiting for the device to know it."""
        return float(self.mean_ratio)


class Objective:
    """The loss of one method on one schedule."""

    def __init__(self, method: Method, config: RunConfig, schedule: Schedule):
        """Work out every step's scalars once."""
        self.method = method
        self.config = config
        self._schedule = schedule
        kernel = stochastic_kernel(schedule.family, config.kernel)
        self._kernels = [kernel(schedule, step, config.noise_level) for step in range(schedule.steps)]
        self._intervals = schedule.intervals().tolist()
        self._means = schedule_means(self._kernels, self._intervals)
        if method.branching == "per_step":
            self._require_noise(config.branches)

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
        """Return the scalars of a zeroth-order step in the log-ratio's form."""
        return zeroth_order_weights(
            self.method.weight,
            self.method.trust_region,
            self._kernels[step],
            self._intervals[step],
            self._means,
            float(self._schedule.noise[step]),
        )

    def __call__(self, rows: StepRows, output: Tensor, old: Tensor, reference: Tensor | None) -> RowLoss:
        """Return the loss of rows of one step.

        Args:
            rows: B rows.
            output: (B, C, H, W) o_θ, with gradient.
            old: (B, C, H, W) output of the policy that made the rollout.
            reference: (B, C, H, W) output of the base model; may be None unless ``needs_reference``.
        """
        total = torch.zeros(len(output), device=output.device)
        clipped, ratio = total.new_zeros(()), total.new_ones(())
        if self.method.objective == "regression" and not rows.anchor_only:
            total = self._regression(rows, output, old, reference)
        elif rows.advantages is not None:
            total, clipped, ratio = self._log_ratio_form(rows, output, old)
        kl = torch.zeros(len(output), device=output.device)
        if reference is not None:
            kl = self._kl_scale(rows.step) * core.squared_distance(output, reference)
            if self.method.kl != "none":
                total = total + self.config.kl_weight * kl
        return RowLoss(total, kl.detach(), clipped, ratio)

    def _log_ratio_form(self, rows: StepRows, output: Tensor, old: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The clipped forms of the squared loss: PPO's exp-ratio or the matching loss."""
        weights = self.weights(rows.step)
        change = output - old
        ratio = core.log_ratio(change, rows.noise, weights.slope)
        scaled = ratio
        if weights.centred:
            drift = 0.5 * weights.slope**2 * change.pow(2).flatten(1).mean(1)
            scaled = ratio + drift.unsqueeze(1)
        scaled = weights.ratio_scale * scaled
        form = core.clipped_ratio if self.method.objective == "ratio" else core.clipped_matching
        losses = form(scaled, rows.advantages, self.config.clip_range) / weights.ratio_scale
        share = core.clipped_share(scaled.detach(), rows.advantages, *self._clip_bounds())
        total = weights.loss_scale * losses.mean(1)
        return total, share, ratio.detach().exp().mean()

    def _regression(self, rows: StepRows, output: Tensor, old: Tensor, reference: Tensor | None) -> Tensor:
        """The squared loss itself: W1‖o_θ − (o_anchor + γG)‖² + W2‖o_θ − o_old‖²."""
        anchor = reference if self.method.anchor == "ref" else old
        guidance = rows.guidance if rows.guidance is not None else self._zeroth_order_guidance(rows)
        weight = regression_weight(
            self.method.weight,
            self._kernels[rows.step],
            clean_slope(self._schedule, rows.step),
            self._regression_scale(),
        )
        matched = core.matching(output, anchor, guidance)
        total = weight * (matched if rows.weight is None else rows.weight * matched)
        if self.method.trust_region == "old" and self.config.old_weight > 0:
            total = total + self.config.old_weight * core.squared_distance(output, old)
        return total

    def _zeroth_order_guidance(self, rows: StepRows) -> Tensor:
        """γG = γ·mean_K(Â·ε)/w: the mean over branches has the gradient of the branches' mean loss."""
        schedule, step = self._schedule, rows.step
        strength = guidance_strength(
            self.method.strength,
            float(schedule.signal[step]),
            float(schedule.signal[step + 1]),
            self._regression_scale(),
            self.config.discount,
            schedule.steps - 1 - step,
        )
        weighted = rows.advantages.view(*rows.advantages.shape, 1, 1, 1) * rows.noise
        return strength * weighted.mean(1) / self._slope(step)

    def _slope(self, step: int) -> float:
        if self.method.branching != "none":
            return self._kernels[step].slope
        return forward_slope("forward_one", float(self._schedule.noise[step]))

    def _regression_scale(self) -> float:
        """β of the rows whose target is o_anchor + G/β; DiffusionNFT's is the step between its policies."""
        return self.config.contrast_step if self.method.normalised else self.config.kl_weight

    def _clip_bounds(self) -> tuple[float, float]:
        """Return the log-ratios at which branches with positive and negative advantage stop pulling."""
        clip = self.config.clip_range
        if self.method.objective != "ratio":
            return clip, -clip
        return math.log1p(clip), math.log1p(-clip) if clip < 1 else -math.inf

    def _kl_scale(self, step: int) -> float:
        """λ where there is a kernel; 1 for rows of the forward process, as their papers have it."""
        if self.method.kl == "plain":
            return 1.0
        coefficients = self._kernels[step]
        return coefficients.natural_weight if coefficients.std > 0 else 0.0
