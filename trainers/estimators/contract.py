"""What goes into an estimator and what comes out: a ``Task`` in, a ``Rollout`` of ``StepRows`` out.

Rows are grouped by sampling step because a step's kernel and weights are scalars. A row is one state; K
branches that left the same state share its row, so the network runs once for all of them in training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainers.config import RunConfig
from trainers.core.schedule import Schedule
from trainers.methods import Method
from trainers.models.base import Conditions
from trainers.policy import Policy
from trainers.ranks import ALONE, Ranks
from trainers.rewards.contract import Reward
from trainers.samplers.kernels import Kernel, stochastic_kernel


@dataclass(frozen=True)
class Task:
    """One rollout's assignment.

    Attributes:
        policy: The policy to sample from.
        schedule: The rollout's noise levels.
        prompts: All training prompts, N.
        conditions: The N encoded prompts.
        chosen: (P,) indices of this rollout's prompts.
        reward: The reward to maximise.
        generators: One CPU generator per purpose: ``latents``, ``transitions``, ``steps``, ``updates``.
        ranks: The processes that share the rollout; ``chosen`` holds this one's prompts.
    """

    policy: Policy
    schedule: Schedule
    prompts: Sequence[str]
    conditions: Conditions
    chosen: Tensor
    reward: Reward
    generators: dict[str, torch.Generator]
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class StepRows:
    """Rows of one sampling step.

    Attributes:
        step: Index into the schedule.
        latents: (B, C, H, W) states.
        prompt_index: (B,) index of each row's prompt in the task.
        noise: (B, K, C, H, W) noise of the branches (zeroth order), else None. Rows of the forward
            process carry w(u − o_old), which plays the same part (``core.weights.forward_slope``).
        advantages: (B, K) advantage of each branch (zeroth order), else None.
        guidance: (B, C, H, W) γG in output space (first order), else None.
        sample: (B,) number of each row's trajectory among everybody's, or None where rows are not
            trajectories: the steps of one trajectory are trained in one update.
        weights: (B, K) what each branch weighs in its update (K = 1 for rows without branches), or None
            for the mean over branches, row by row. ``trainers.updates`` works them out.
        first: How many of the step's rows other processes hold before these.
        total: The step's rows of all processes; None when these are all.
    """

    step: int
    latents: Tensor
    prompt_index: Tensor
    noise: Tensor | None = None
    advantages: Tensor | None = None
    guidance: Tensor | None = None
    sample: Tensor | None = None
    weights: Tensor | None = None
    first: int = 0
    total: int | None = None

    @property
    def count(self) -> int:
        """The step's rows of all processes."""
        return len(self.latents) if self.total is None else self.total

    @property
    def branches(self) -> int:
        """K, the branches of each row; 1 for rows without any."""
        return 1 if self.advantages is None else self.advantages.shape[1]

    @property
    def anchor_only(self) -> bool:
        """Whether the rows carry no guidance and only hold the policy near the base model."""
        return self.advantages is None and self.guidance is None

    def select(self, index: slice | Tensor) -> StepRows:
        """Return some of the rows, as if they were all."""
        parts = (
            self.latents,
            self.prompt_index,
            self.noise,
            self.advantages,
            self.guidance,
            self.sample,
            self.weights,
        )
        return StepRows(self.step, *(None if part is None else part[index] for part in parts))


@dataclass(frozen=True)
class Rollout:
    """What an estimator hands to the loss.

    Attributes:
        rows: Rows by step.
        rewards: (N,) rewards of the finished pictures.
        zero_spread_groups: Groups that carried no signal.
        images_sampled: Finished pictures.

    When several processes share the rollout, an estimator returns this process's part, with an entry of
    ``rows`` for every entry that any process has, in the same order.
    """

    rows: tuple[StepRows, ...]
    rewards: Tensor
    zero_spread_groups: int
    images_sampled: int


@dataclass
class EstimatorState:
    """What an estimator carries from rollout to rollout; saved with every checkpoint.

    Attributes:
        values: Numbers by name.
        tensors: Tensors by name (a replay buffer, a window of norms).
    """

    values: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Estimator(ABC):
    """(task) → rollout whose rows carry guidance shaped like the latents."""

    def __init__(self, method: Method, config: RunConfig):
        """Read the row and the settings."""
        self.method = method
        self.config = config
        self.state = EstimatorState()

    def kernel(self, task: Task) -> Kernel:
        """Return the stochastic kernel of the task's family that the settings ask for."""
        return stochastic_kernel(task.schedule.family, self.config.kernel)

    def stored_prompts(self) -> Tensor:
        """Return (B,) prompts of stored states that a rollout may go on from; none unless overridden."""
        return torch.zeros(0, dtype=torch.long)

    @abstractmethod
    def collect(self, task: Task) -> Rollout:
        """Sample, score and attach guidance."""
