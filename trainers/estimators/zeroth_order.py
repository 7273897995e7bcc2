"""Zeroth-order guidance: the noise that was drawn, weighed by how well the finished picture did.

Ψ̂ ∝ Â·ε needs reward values only. Three ways of drawing noise: whole stochastic trajectories (GRPO), whose
samples of one prompt form a group; trees of such trajectories (BranchGRPO), whose nodes of one depth do; or K
branches that leave one state and run deterministically to the end (TempFlow, RSM), which form a group by
themselves and so isolate the effect of that step's noise.
Sources: arXiv 2505.05470, 2509.06040, 2508.04324, 2604.17415 section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.config import RunConfig
from trainers.estimators.comparing import Comparing
from trainers.estimators.contract import Estimator, Rollout, StepRows, Task
from trainers.estimators.scoring import score
from trainers.estimators.start import initial_latents, sample_numbers, start_rows, training_steps
from trainers.method import Method
from trainers.samplers.rollout import branch_per_step, branch_tree, trajectory
from trainers.steps import stochastic_steps


class ZerothOrder(Estimator):
    """Rollouts, rewards and advantages of black-box methods."""

    def __init__(self, method: Method, config: RunConfig):
        """Read the row and the settings."""
        super().__init__(method, config)
        self._comparing = Comparing(method, config)

    def collect(self, task: Task) -> Rollout:
        """Sample, score and attach noises and advantages; see ``Estimator``."""
        if self.method.branching == "per_step":
            return self._branches(task)
        if self.method.branching == "tree":
            return self._tree(task)
        return self._trajectories(task)

    def _start(self, task: Task, count: int) -> Tensor:
        return initial_latents(task, count, self.config.initial_noise == "shared")

    def _last_trained(self, task: Task) -> int:
        return stochastic_steps(self.method, self.config, task.schedule)

    def _branches(self, task: Task) -> Rollout:
        index, network = start_rows(task, self.config.roots_per_prompt)
        result = branch_per_step(
            network,
            task.schedule,
            self._start(task, len(index)),
            self.config.branches,
            self.kernel(task),
            self.config.noise_level,
            task.generators["transitions"],
            task.ranks.share,
            self._anchored,
        )
        leaves = torch.cat([leaf.flatten(0, 1) for leaf in result.leaves.values()])
        owners = torch.cat([index.repeat_interleave(leaf.shape[1]) for leaf in result.leaves.values()])
        rewards = score(task, leaves, owners)
        parts = rewards.split([leaf.shape[0] * leaf.shape[1] for leaf in result.leaves.values()])
        groups = [part.unflatten(0, (len(index), -1)) for part in parts]
        values, silent = self._compared(task, groups)
        rows = [
            StepRows(step, result.parents[step], index, result.noises[step], advantages)
            for step, advantages in zip(result.leaves, values, strict=True)
        ]
        if self._anchored:
            rows += self._anchor_rows(task, result.path, index)
        return Rollout(tuple(rows), rewards, silent, len(rewards))

    def _compared(self, task: Task, groups: list[Tensor]) -> tuple[list[Tensor], int]:
        """Return the advantages (N, K) of the groups of each step; branches of one state are a group."""
        if self.config.advantage_std == "rollout":  # the spread is that of all steps together
            everybody = task.ranks.gather(torch.cat([group.flatten() for group in groups]))
            widest = self._comparing.spread(everybody)
            found = [self._comparing.within(task, group, widest) for group in groups]
        else:
            found = [self._comparing.within(task, group) for group in groups]
        return [values for values, _ in found], sum(silent for _, silent in found)

    @property
    def _anchored(self) -> bool:
        """Whether states where nothing branched hold the policy."""
        config = self.config
        return self.method.kl in ("all", "anchors") and config.kl_weight > 0 and config.anchor_fraction > 0

    def _anchor_rows(self, task: Task, path: dict[int, Tensor], index: Tensor) -> list[StepRows]:
        """Return states where nothing branched, which only carry the KL term; never of the last step.

        There are ``anchor_fraction`` of them for every branch of the rollout, drawn over all steps and
        roots, or all when there are fewer.
        """
        share, last = self.config.anchor_fraction, task.schedule.steps - 1
        path = {step: states for step, states in path.items() if step != last}
        if not path:
            return []
        roots = task.ranks.count * len(index)
        mine = task.ranks.share.rows(roots)
        keep = max(1, int(share * roots * sum(self.config.branches) + 1e-9))
        drawn = torch.randperm(roots * len(path), generator=task.generators["steps"])[:keep].sort().values
        rows = []
        for number, (step, states) in enumerate(path.items()):
            chosen = drawn[drawn // roots == number] % roots
            own = chosen[(chosen >= mine.start) & (chosen < mine.stop)] - mine.start
            rows.append(StepRows(step, states[own], index[own]))
        return rows

    def _trajectories(self, task: Task) -> Rollout:
        index, network = start_rows(task, self.config.group_size)
        result = trajectory(
            network,
            task.schedule,
            self._start(task, len(index)),
            self.kernel(task),
            self.config.noise_level,
            task.generators["transitions"],
            task.ranks.share,
        )
        rewards = score(task, result.final, index)
        values, silent = self._comparing.samples(task, self.state, rewards)
        numbers = sample_numbers(task, len(index))
        rows = tuple(
            StepRows(
                step,
                result.states[step],
                index,
                result.noises[step].unsqueeze(1),
                values.view(-1, 1),
                sample=numbers,
            )
            for step in training_steps(task, self.config.train_fraction, self._last_trained(task))
        )
        return Rollout(rows, rewards, silent, len(rewards))

    def _tree(self, task: Task) -> Rollout:
        index, network = start_rows(task, self.config.roots_per_prompt)
        result = branch_tree(
            network,
            task.schedule,
            self._start(task, len(index)),
            self.config.branches,
            self.kernel(task),
            self.config.noise_level,
            task.generators["transitions"],
            task.ranks.share,
        )
        leaves = len(result.leaves) // len(index)
        rewards = score(task, result.leaves, index.repeat_interleave(leaves))
        by_root = rewards.view(len(index), -1)
        rows = []
        for step in training_steps(task, self.config.train_fraction, self._last_trained(task)):
            nodes, noise = result.parents[step], result.noises[step]
            # A child is worth the mean of its leaves, compared with its tree's nodes of that depth.
            children = noise.shape[:2].numel() // len(index)
            values = by_root.unflatten(1, (children, -1)).mean(-1)
            advantages, _ = self._comparing.within(task, values)
            owners = index.repeat_interleave(len(nodes) // len(index))
            rows.append(StepRows(step, nodes, owners, noise, advantages.reshape(noise.shape[:2])))
        _, silent = self._comparing.within(task, by_root)
        return Rollout(tuple(rows), rewards, silent, len(rewards))
