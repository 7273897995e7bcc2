"""Zeroth-order guidance: the noise that was drawn, weighed by how well the finished picture did.

Ψ̂ ∝ Â·ε needs reward values only. Two ways of drawing noise: whole stochastic trajectories (GRPO), whose
samples of one prompt form a group, or K branches that leave one state and run deterministically to the end
(TempFlow, RSM), which form a group by themselves and so isolate the effect of that step's noise.
Sources: arXiv 2505.05470, 2508.04324, 2604.17415 section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.core.advantages import advantages, zero_spread
from trainers.estimators.contract import Estimator, Rollout, StepRows, Task
from trainers.estimators.scoring import score
from trainers.samplers.kernels import stochastic_kernel
from trainers.samplers.rollout import branch_per_step, trajectory


class ZerothOrder(Estimator):
    """Rollouts, rewards and advantages of black-box methods."""

    def collect(self, task: Task) -> Rollout:
        """Sample, score and attach noises and advantages; see ``Estimator``."""
        if self.method.branching == "per_step":
            return self._branches(task)
        return self._trajectories(task)

    def _advantages(self, rewards: Tensor) -> Tensor:
        config = self.config
        return advantages(rewards, config.advantage, config.advantage_clamp, config.tilt)

    def _branches(self, task: Task) -> Rollout:
        index, network = start_rows(task, self.config.roots_per_prompt)
        roots = initial_latents(task, len(index))
        kernel = stochastic_kernel(task.schedule.family)
        result = branch_per_step(
            network,
            task.schedule,
            roots,
            self.config.branches,
            kernel,
            self.config.noise_level,
            task.generators["transitions"],
        )
        leaves = torch.cat([leaf.flatten(0, 1) for leaf in result.leaves.values()])
        owners = torch.cat([index.repeat_interleave(leaf.shape[1]) for leaf in result.leaves.values()])
        rewards = score(task, leaves, owners)
        groups = [
            part.unflatten(0, (len(index), -1))
            for part in rewards.split([leaf.shape[0] * leaf.shape[1] for leaf in result.leaves.values()])
        ]
        rows = [
            StepRows(step, result.parents[step], index, result.noises[step], self._advantages(group))
            for step, group in zip(result.leaves, groups, strict=True)
        ]
        if self.method.kl == "all":
            rows += self._anchor_rows(task, result.path, index)
        silent = sum(int(zero_spread(group).sum()) for group in groups)
        return Rollout(tuple(rows), rewards, silent, len(rewards))

    def _anchor_rows(self, task: Task, path: dict[int, Tensor], index: Tensor) -> list[StepRows]:
        """Return a share of the deterministic rows, spread over steps, that only carry the KL term."""
        share = self.config.anchor_fraction
        if self.config.kl_weight == 0 or share == 0 or not path:
            return []
        keep = max(1, round(share * len(index)))
        rows = []
        for step, states in path.items():
            chosen = torch.randperm(len(index), generator=task.generators["steps"])[:keep].sort().values
            rows.append(StepRows(step, states[chosen], index[chosen]))
        return rows

    def _trajectories(self, task: Task) -> Rollout:
        index, network = start_rows(task, self.config.group_size)
        kernel = stochastic_kernel(task.schedule.family)
        result = trajectory(
            network,
            task.schedule,
            initial_latents(task, len(index)),
            kernel,
            self.config.noise_level,
            task.generators["transitions"],
        )
        rewards = score(task, result.final, index)
        groups = rewards.view(-1, self.config.group_size)
        values = self._advantages(groups).view(-1, 1)
        rows = tuple(
            StepRows(step, result.states[step], index, result.noises[step].unsqueeze(1), values)
            for step in training_steps(task, self.config.train_fraction, task.schedule.steps - 1)
        )
        return Rollout(rows, rewards, int(zero_spread(groups).sum()), len(rewards))


def start_rows(task: Task, samples_per_prompt: int):
    """Return each sample's prompt index (N,) and the policy's sampling network bound to the conditions."""
    index = torch.arange(len(task.prompts)).repeat_interleave(samples_per_prompt)

    def network(latents: Tensor, step: int, samples: Tensor) -> Tensor:
        rows = task.conditions.select(index[samples])
        return task.policy.sample_output(latents, task.schedule, step, rows)

    return index, network


def initial_latents(task: Task, count: int) -> Tensor:
    """Draw (N, C, H, W) float32 initial noise."""
    shape = (count, *task.policy.model.latent_shape)
    return torch.randn(shape, generator=task.generators["latents"]).to(task.policy.model.device)


def training_steps(task: Task, fraction: float, usable: int) -> list[int]:
    """Choose which of the first ``usable`` steps are trained, in order."""
    count = max(1, round(fraction * usable))
    chosen = torch.randperm(usable, generator=task.generators["steps"])[:count]
    return sorted(chosen.tolist())
