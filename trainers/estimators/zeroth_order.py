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
from trainers.core.advantages import advantages, zero_spread
from trainers.estimators.contract import Estimator, Rollout, StepRows, Task
from trainers.estimators.scoring import score
from trainers.estimators.start import initial_latents, start_rows, training_steps
from trainers.ranks import Ranks
from trainers.samplers.rollout import branch_per_step, branch_tree, trajectory


class ZerothOrder(Estimator):
    """Rollouts, rewards and advantages of black-box methods."""

    def collect(self, task: Task) -> Rollout:
        """Sample, score and attach noises and advantages; see ``Estimator``."""
        if self.method.branching == "per_step":
            return self._branches(task)
        if self.method.branching == "tree":
            return self._tree(task)
        return self._trajectories(task)

    def _advantages(self, rewards: Tensor) -> Tensor:
        return group_advantages(self.config, rewards)

    def _branches(self, task: Task) -> Rollout:
        index, network = start_rows(task, self.config.roots_per_prompt)
        roots = initial_latents(task, len(index))
        result = branch_per_step(
            network,
            task.schedule,
            roots,
            self.config.branches,
            self.kernel(task),
            self.config.noise_level,
            task.generators["transitions"],
            task.ranks.share,
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
        roots = task.ranks.count * len(index)
        mine = task.ranks.share.rows(roots)
        keep = max(1, round(share * roots))
        rows = []
        for step, states in path.items():
            chosen = torch.randperm(roots, generator=task.generators["steps"])[:keep].sort().values
            chosen = chosen[(chosen >= mine.start) & (chosen < mine.stop)] - mine.start
            rows.append(StepRows(step, states[chosen], index[chosen]))
        return rows

    def _trajectories(self, task: Task) -> Rollout:
        index, network = start_rows(task, self.config.group_size)
        result = trajectory(
            network,
            task.schedule,
            initial_latents(task, len(index)),
            self.kernel(task),
            self.config.noise_level,
            task.generators["transitions"],
            task.ranks.share,
        )
        rewards = score(task, result.final, index)
        values, silent = compared(self.config, self.method.groups, task.ranks, rewards)
        rows = tuple(
            StepRows(step, result.states[step], index, result.noises[step].unsqueeze(1), values.view(-1, 1))
            for step in training_steps(task, self.config.train_fraction, task.schedule.steps - 1)
        )
        return Rollout(rows, rewards, silent, len(rewards))

    def _tree(self, task: Task) -> Rollout:
        index, network = start_rows(task, self.config.roots_per_prompt)
        result = branch_tree(
            network,
            task.schedule,
            initial_latents(task, len(index)),
            self.config.branches,
            self.kernel(task),
            self.config.noise_level,
            task.generators["transitions"],
            task.ranks.share,
        )
        leaves = len(result.leaves) // len(index)
        rewards = score(task, result.leaves, index.repeat_interleave(leaves))
        by_prompt = rewards.view(len(task.chosen), -1)
        rows = []
        for step in training_steps(task, self.config.train_fraction, task.schedule.steps - 1):
            nodes, noise = result.parents[step], result.noises[step]
            # A child is worth the mean of its leaves, compared with its prompt's nodes of that depth.
            values = by_prompt.unflatten(1, (-1, len(rewards) // noise.shape[:2].numel())).mean(-1)
            owners = index.repeat_interleave(len(nodes) // len(index))
            rows.append(StepRows(step, nodes, owners, noise, self._advantages(values).view(noise.shape[:2])))
        return Rollout(tuple(rows), rewards, int(zero_spread(by_prompt).sum()), len(rewards))


def compared(config: RunConfig, groups: str, ranks: Ranks, rewards: Tensor) -> tuple[Tensor, int]:
    """Return the advantages (N,) of samples within their groups, and how many groups carry no signal.

    Args:
        config: Group size and kind of advantage.
        groups: ``prompt``, or ``batch`` for one group of everybody's samples.
        ranks: The processes that share the rollout.
        rewards: (N,) of this process's samples, prompt by prompt.
    """
    if groups != "batch":
        parts = rewards.view(-1, config.group_size)
        return group_advantages(config, parts).flatten(), int(zero_spread(parts).sum())
    whole = ranks.gather(rewards).view(1, -1)
    values = group_advantages(config, whole).flatten()
    silent = int(zero_spread(whole).sum()) if ranks.rank == 0 else 0
    return values[ranks.share.rows(len(values))], silent


def group_advantages(config: RunConfig, rewards: Tensor) -> Tensor:
    """Return the advantages (…, M) that the settings ask for."""
    return advantages(rewards, config.advantage, config.advantage_clamp, config.tilt)
