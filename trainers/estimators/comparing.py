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
            std = self.spread(task.ranks.gather(rewards.flatten()))
        return self._advantages(rewards, std), int(zero_spread(rewards).sum())

    def spread(self, rewards: Tensor) -> Tensor:
        """Return the standard deviation (scalar) of rewards (N,), counted as the row does."""
        return standard_deviation(rewards, self._method.unbiased_std)

    def samples(self, task: Task, state: EstimatorState, rewards: Tensor) -> tuple[Tensor, int]:
        """Return the advantages (N,) of samples that lie prompt by prompt, and how many groups are silent.

        Groups reach over all processes; the first one counts the silent ones.

        Args:
            task: The rollout's assignment.
            state: Where the rewards of earlier rollouts are kept (``history``).
            rewards: (N,) of this process's samples.
        """
        everybody = task.ranks.gather(rewards)
        owners = task.chosen.repeat_interleave(self._config.group_size)
        prompts = task.ranks.gather(owners.to(rewards.device))
        if self._method.groups == "prompt":
            values, silent = self._by_prompt(everybody, prompts)
        else:
            values, silent = self._advantages(everybody.unsqueeze(0)).squeeze(0), int(zero_spread(everybody))
        if self._method.groups == "history" and self._config.history_size:
            history = _History(state, len(task.prompts), self._config.history_size)
            values = self._against_history(history, values, everybody, prompts)
        mine = values[task.ranks.share.rows(len(values))]
        return mine, silent if task.ranks.rank == 0 else 0

    def _by_prompt(self, rewards: Tensor, prompts: Tensor) -> tuple[Tensor, int]:
        """Compare the samples (N,) of each prompt, be it drawn once in the rollout or more often."""
        std = self.spread(rewards) if self._config.advantage_std == "rollout" else None
        values, silent = torch.empty_like(rewards), 0
        for prompt in prompts.unique().tolist():
            mine = prompts == prompt
            group = rewards[mine].unsqueeze(0)
            values[mine] = self._advantages(group, std).squeeze(0)
            silent += int(zero_spread(group).sum())
        return values, silent

    def _advantages(self, rewards: Tensor, std: Tensor | None = None, among: Tensor | None = None) -> Tensor:
        config, method = self._config, self._method
        return advantages(
            rewards,
            config.advantage,
            config.advantage_clamp,
            config.tilt,
            method.std_epsilon,
            method.unbiased_std,
            std,
            among,
        )

    def _against_history(self, history: _History, values: Tensor, rewards: Tensor, prompts: Tensor) -> Tensor:
        """Return DDPO's advantages (N,): against a prompt's latest rewards once there are enough of them.

        These include the present ones. A prompt that was seen less often keeps its advantage among
        ``values``, within the whole rollout. Source: DDPO (arXiv 2305.13301), section 5 and its published
        program.
        """
        history.append(prompts, rewards)
        for prompt in prompts.unique().tolist():
            seen = history.of(prompt).to(rewards)
            if len(seen) >= HISTORY_MINIMUM:
                mine = prompts == prompt
                values[mine] = self._advantages(rewards[mine], among=seen)
        return values


class _History:
    """The latest rewards of every prompt, in tensors that checkpoints keep; copies, so that these stay."""

    def __init__(self, state: EstimatorState, prompts: int, size: int):
        known, none = state.tensors, torch.zeros(prompts, size)
        self._rewards = known.get("history_rewards", none).clone()
        self._counts = known.get("history_counts", torch.zeros(prompts, dtype=torch.long)).clone()
        known |= {"history_rewards": self._rewards, "history_counts": self._counts}

    def append(self, prompts: Tensor, rewards: Tensor) -> None:
        for prompt, reward in zip(prompts.tolist(), rewards.cpu(), strict=True):
            place = int(self._counts[prompt]) % self._rewards.shape[1]
            self._rewards[prompt, place] = reward
            self._counts[prompt] += 1

    def of(self, prompt: int) -> Tensor:
        return self._rewards[prompt, : min(int(self._counts[prompt]), self._rewards.shape[1])]
