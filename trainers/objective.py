"""From rows to the loss: applies a method's row of weights and trust regions to network outputs.

All formulas live in ``trainers.core``; this module only chooses among them by the names in the row. The KL
term is β‖o_θ − o_ref‖² times what the row's ``kl_scale`` says of the stochastic kernel at the row's step:

    transition:  λ = k²/(2σ²), the KL of the step itself       rate:  λΔ = k²/(2τ²), τ² = σ²/Δ       output:
        1
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
from trainers.core.schedule import FLOW, Schedule
from trainers.core.weights import (
    HUBER,
    StepWeights,
    forward_slope,
    guidance_strength,
    regression_weight,
    zeroth_order_weights,
)
from trainers.errors import InputError
from trainers.estimators.contract import StepRows
from trainers.methods import Method
from trainers.steps import kernels_of, means_of


@dataclass(frozen=True)
class RowLoss:
    """Loss and diagnostics of B rows of one step.

    Attributes:
        loss: (B,) with gradient, weighed by the rows' weights where they have some.
        kl: (B,) λ‖o_θ − o_ref‖², without gradient; zeros where the reference was not needed.
        pull: (B,) ‖o_θ − o‖² to the policy that W2 holds the trained one near; zeros where W2 is 0.
        clipped: Scalar number of branches cut off by the trust region.
        ratios: Scalar sum of the branches' importance ratios exp(ℓ).
        branches: Scalar number of branches that pull.
    """

    loss: Tensor
    kl: Tensor
    pull: Tensor
    clipped: Tensor
    ratios: Tensor
    branches: Tensor

    @property
    def clip_fraction(self) -> float:
        """The share of branches cut off, waiting for the device to know it."""
        return float(self.clipped) / max(1.0, float(self.branches))

    @property
    def ratio(self) -> float:
        """The mean importance ratio, waiting for the device to know it; 1 where there is none."""
        return float(self.ratios) / float(self.branches) if float(self.branches) else 1.0


class Objective:
    """The loss of one method on one schedule."""

    def __init__(self, method: Method, config: RunConfig, schedule: Schedule):
        """Work out every step's scalars once."""
        self.method = method
        self.config = config
        self._schedule = schedule
        self._kernels = kernels_of(schedule, config)
        self._intervals = schedule.intervals().tolist()
        self._means = means_of(schedule, config)
        if method.branching == "per_step":
            self._require_noise(config.branches)

    def _require_noise(self, branches: Sequence[int]) -> None:
        silent = [i for i, count in enumerate(branches) if count and self._kernels[i].std == 0]
        if silent:
            raise InputError(
                f"'branches' asks for branches at step {silent[0]}, where this sampler injects no noise, so "
                "they would all be alike; put 0 there."
            )

    def needs_reference(self, anchor_only: bool) -> bool:
        """Whether o_ref enters the loss of rows that are trained, or of such as only hold the policy."""
        held = self.method.kl in _HOLDS[anchor_only] and self.config.kl_weight > 0
        return held or (self.method.anchor == "ref" and not anchor_only)

    @property
    def held_to(self) -> str:
        """Which policy W2 holds the trained one near: ``old``, ``average``, or "" for none."""
        if self.config.old_weight == 0:
            return ""
        if self.method.average == "pull":
            return "average"
        return "old" if self.method.trust_region == "old" else ""

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

    def __call__(
        self,
        rows: StepRows,
        output: Tensor,
        old: Tensor,
        reference: Tensor | None,
        average: Tensor | None = None,
    ) -> RowLoss:
        """Return the loss of rows of one step.

        Args:
            rows: B rows.
            output: (B, C, H, W) o_θ, with gradient.
            old: (B, C, H, W) output of the policy that made the rollout.
            reference: (B, C, H, W) output of the base model; may be None unless ``needs_reference``.
            average: (B, C, H, W) output of the moving average of the policy, where ``held_to`` asks for it.
        """
        weights = _branch_weights(rows, output)
        nothing = torch.zeros(len(output), device=output.device)
        total, share = nothing, weights.sum(1)
        clipped, ratios, branches = nothing.sum(), nothing.sum(), nothing.sum()
        if self.method.objective == "regression" and not rows.anchor_only:
            total = self._regression(rows, output, old, reference, weights)
        elif rows.advantages is not None:
            losses, cut, ratio = self._log_ratio_form(rows, output, old)
            pulling = (weights > 0) & (rows.advantages != 0)
            total = (weights * losses).sum(1)
            clipped, branches = (cut & pulling).sum(), pulling.sum()
            ratios = (ratio.detach().exp() * pulling).sum()
        kl, held = nothing, self.method.kl in _HOLDS[rows.anchor_only]
        if reference is not None:
            distance = core.squared_distance(output, reference)
            kl = self._natural_weight(rows.step) * distance
            if held:
                total = total + self.config.kl_weight * self._kl_scale(rows.step) * share * distance
        pull = nothing
        if self.held_to and not rows.anchor_only:
            pull = core.squared_distance(output, average if self.held_to == "average" else old)
            total = total + self.config.old_weight * share * pull
        return RowLoss(total, kl.detach(), pull.detach(), clipped, ratios, branches)

    def _log_ratio_form(self, rows: StepRows, output: Tensor, old: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The clipped forms of the squared loss, (B, K): losses, which are cut off, and log-ratios ℓ."""
        weights = self.weights(rows.step)
        change = output - old
        ratio = core.log_ratio(change, rows.noise, weights.slope)
        if self.method.weight == HUBER:
            error = rows.noise.pow(2).flatten(2).mean(2) / weights.slope**2
            noise = float(self._schedule.noise[rows.step])
            ratio = core.powered_log_ratio(ratio, error, noise, self.config.huber_power)
        scaled = ratio
        if weights.centred:
            drift = 0.5 * weights.slope**2 * change.pow(2).flatten(1).mean(1)
            scaled = ratio + drift.unsqueeze(1)
        scaled = weights.ratio_scale * scaled
        form = core.clipped_ratio if self.method.objective == "ratio" else core.clipped_matching
        losses = form(scaled, rows.advantages, self.config.clip_range) / weights.ratio_scale
        cut = core.clipped(scaled.detach(), rows.advantages, *self._clip_bounds())
        return weights.loss_scale * losses, cut, ratio

    def _regression(
        self, rows: StepRows, output: Tensor, old: Tensor, reference: Tensor | None, weights: Tensor
    ) -> Tensor:
        """The squared loss itself: W1‖o_θ − (o_anchor + γG)‖², or DiffusionNFT's pair of them."""
        slope = clean_slope(self._schedule, rows.step)
        share = weights.sum(1)
        if self.method.normalised:
            target = old + rows.noise[:, 0] / self._slope(rows.step)
            good = 0.5 + 0.5 * rows.advantages[:, 0]
            return share * core.contrast(output, old, target, good, self.config.contrast_step, slope)
        anchor = reference if self.method.anchor == "ref" else old
        guidance = rows.guidance
        if guidance is None:
            guidance = self._zeroth_order_guidance(rows, weights)
        weight = regression_weight(
            self.method.weight, self._kernels[rows.step], slope, self._regression_scale()
        )
        return share * weight * core.matching(output, anchor, guidance)

    def _zeroth_order_guidance(self, rows: StepRows, weights: Tensor) -> Tensor:
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
        shares = weights / weights.sum(1, keepdim=True)
        weighted = (shares * rows.advantages).view(*shares.shape, 1, 1, 1) * rows.noise
        return strength * weighted.sum(1) / self._slope(step)

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
        """What β multiplies; only flows have a noise rate τ² = σ²/Δ, elsewhere it is the KL of the step."""
        scale = self.method.kl_scale if self.config.kl_scale == "auto" else self.config.kl_scale
        if scale == "output":
            return 1.0
        per_time = scale == "rate" and self._schedule.family == FLOW
        return self._natural_weight(step) * (self._intervals[step] if per_time else 1.0)

    def _natural_weight(self, step: int) -> float:
        """λ where there is a kernel; 1 for rows of the forward process, as their papers have it."""
        if self.method.branching == "none":
            return 1.0
        coefficients = self._kernels[step]
        return coefficients.natural_weight if coefficients.std > 0 else 0.0


_HOLDS = {False: ("rows", "all"), True: ("anchors", "all")}


def _branch_weights(rows: StepRows, output: Tensor) -> Tensor:
    """Return (B, K): the rows' weights, or those of the mean over branches."""
    if rows.weights is not None:
        return rows.weights
    return output.new_full((len(output), rows.branches), 1.0 / rows.branches)
