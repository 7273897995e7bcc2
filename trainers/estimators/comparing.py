"""Whose rewards are compared with whose: advantages within prompts, rollouts, or a prompt's own history."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.config import RunConfig
from trainers.core.advantages import advantages, standard_deviation, zero_spread
from trainers.estimators.contract import EstimatorState, Task
from trainers.method import Method

HISTORY_MINIMUM = 16


class Comparing:
    """Turns the rewards of one estimator's rollouts into advantages, as its row and settings ask."""

    def __init__(self, method: Method, config: RunConfig):
        """Bind a row and settings."""
        self._method = method
        self._config = config

    def within(self, task: Task, rewards: Tensor, std: Tensor | None = None) -> tuple[Tensor, int]:
        """Return the advantages of groups (…, M), and how many groups carry no signal.

        Args:
            task: The rollout's assignment.
            rewards: (…, M) rewards of this process's groups of M.
            std: What to divide by; when None the spread of all these groups, or each group's own, as the
                settings have it.
        """
        if std is None and self._config.advantage_std == "rollout":
            std = self.spread(task, rewards.flatten())
        return self._advantages(rewards, std), int(zero_spread(rewards).sum())

    def spread(self, task: Task, rewards: Tensor) -> Tensor:
        """Return the standard deviation (scalar) of the rewards (N,) of all processes."""
        return standard_deviation(task.ranks.gather(rewards), self._method.unbiased_std)

    def samples(self, task: Task, state: EstimatorState, rewards: Tensor) -> tuple[Tensor, int]:
        """Return the advantages (N,) of samples that lie prompt by prompt, and how many groups are silent.

        Args:
            task: The rollout's assignment.
            state: Where the rewards of earlier rollouts are kept (``history``).
            rewards: (N,) of this process's samples.
        """
        if self._method.groups == "prompt":
            values, silent = self.within(task, rewards.view(-1, self._config.group_size))
            return values.flatten(), silent
        everybody = task.ranks.gather(rewards)
        silent = int(zero_spread(everybody)) if task.ranks.rank == 0 else 0
        if self._method.groups == "batch" or not self._config.history_size:
            values = self._advantages(everybody.unsqueeze(0)).squeeze(0)
        else:
            prompts = task.chosen.repeat_interleave(self._config.group_size).to(rewards.device)
            values = self._against_history(task, state, everybody, task.ranks.gather(prompts))
        return values[task.ranks.share.rows(len(values))], silent

    def _advantages(self, rewards: Tensor, std: Tensor | None = None) -> Tensor:
        config, method = self._config, self._method
        return advantages(
            rewards,
            config.advantage,
            config.advantage_clamp,
            config.tilt,
            method.std_epsilon,
            method.unbiased_std,
            std,
        )

    def _against_history(self, task: Task, state: EstimatorState, rewards: Tensor, prompts: Tensor) -> Tensor:
        """Return DDPO's advantages (N,): against a prompt's latest rewards once there are enough of them.

        These include the present ones. A prompt that was seen less often is compared with the whole rollout.
        Source: DDPO (arXiv 2305.13301), section 5 and its published program.
        """
        history = _History(state, len(task.prompts), self._config.history_size)
        history.append(prompts, rewards)
        result = self._advantages(rewards.unsqueeze(0)).squeeze(0)
        for prompt in prompts.unique().tolist():
            seen = history.of(prompt)
            if len(seen) >= HISTORY_MINIMUM:
                mine = prompts == prompt
                together = torch.cat([seen.to(rewards), rewards[mine]]).unsqueeze(0)
                result[mine] = self._relative(together, len(seen))
        return result

    def _relative(self, rewards: Tensor, seen: int) -> Tensor:
        """Return the advantages of the rewards after the first ``seen``, by the statistics of those."""
        config, known = self._config, rewards[0, :seen]
        centered = rewards[0, seen:] - known.mean()
        if config.advantage in ("group", "bounded"):
            centered = centered / (known.std(correction=0) + self._method.std_epsilon)
        clamped = centered.clamp(-config.advantage_clamp, config.advantage_clamp)
        return clamped / config.advantage_clamp if config.advantage == "bounded" else clamped


class _History:
    """The latest rewards of every prompt, in tensors that checkpoints keep."""

    def __init__(self, state: EstimatorState, prompts: int, size: int):
        self._rewards = state.tensors.setdefault("history_rewards", torch.zeros(prompts, size))
        self._counts = state.tensors.setdefault("history_counts", torch.zeros(prompts, dtype=torch.long))

    def append(self, prompts: Tensor, rewards: Tensor) -> None:
        for prompt, reward in zip(prompts.tolist(), rewards.cpu(), strict=True):
            place = int(self._counts[prompt]) % self._rewards.shape[1]
            self._rewards[prompt, place] = reward
            self._counts[prompt] += 1

    def of(self, prompt: int) -> Tensor:
        return self._rewards[prompt, : min(int(self._counts[prompt]), self._rewards.shape[1])]
