"""Forward-process guidance: finished pictures, noised again as in pre-training, weighed by their advantage.

With x_t = signal·x0 + noise·ε, the clean direction u (ε − x0 for flows, ε for diffusion) and the advantage Â
of the finished picture,

    G = Â·(u − o_old)

so no noise of the rollout is needed and any deterministic sampler will do. Rows carry w(u − o_old) as their
"noise", whereby the log-ratio −½w²‖Δo‖² + w⟨ε, Δo⟩ is the difference of two weighted denoising losses: the
one loss serves this family too. Sources: AWM (arXiv 2509.25050), DiffusionNFT (arXiv 2509.16117), Reinforce
Adjoint Matching (arXiv 2605.10759).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.config import RunConfig
from trainers.core.schedule import FLOW
from trainers.core.weights import forward_slope, is_forward
from trainers.estimators.comparing import Comparing
from trainers.estimators.contract import Estimator, Rollout, StepRows, Task
from trainers.estimators.scoring import score
from trainers.estimators.start import initial_latents, sample_numbers, start_rows, strata
from trainers.method import Method
from trainers.samplers.rollout import finished
from trainers.steps import stratified_steps


class ForwardProcess(Estimator):
    """Deterministic rollouts, re-noised finished pictures and their regression directions."""

    def __init__(self, method: Method, config: RunConfig):
        """Read the row and the settings."""
        super().__init__(method, config)
        self._comparing = Comparing(method, config)

    def collect(self, task: Task) -> Rollout:
        """Sample, score, noise again and attach directions; see ``Estimator``."""
        index, network = start_rows(task, self.config.group_size)
        start = initial_latents(task, len(index), self.config.initial_noise == "shared")
        final = finished(network, task.schedule, start, self.config.solver)
        rewards = score(task, final, index)
        values, silent = self._comparing.samples(task, self.state, rewards)
        rows = self._rows(task, final, index, values.view(-1, 1))
        return Rollout(tuple(rows), rewards, silent, len(rewards))

    def _rows(self, task: Task, final: Tensor, index: Tensor, values: Tensor) -> list[StepRows]:
        rows, numbers = [], sample_numbers(task, len(final))
        for step, everybody in self._draws(task, task.ranks.count * len(final)):
            chosen, mine = _own(task, everybody, len(final))
            clean, prompts = final[chosen], index[chosen]
            shape = (len(everybody), *clean.shape[1:])
            noise = torch.randn(shape, generator=task.generators["transitions"])[mine].to(clean)
            signal, level = float(task.schedule.signal[step]), float(task.schedule.noise[step])
            latents = signal * clean + level * noise
            direction = noise - clean if task.schedule.family == FLOW else noise
            error = direction - self._old(task, latents, step, prompts)
            rows.append(
                StepRows(
                    step,
                    latents,
                    prompts,
                    self._slope(level) * error.unsqueeze(1),
                    values[chosen],
                    sample=numbers[chosen],
                )
            )
        return rows

    def _draws(self, task: Task, count: int) -> list[tuple[int, Tensor]]:
        """Assign ``forward_draws`` steps to each of everybody's samples; return the samples of each step.

        A sample that draws a step twice (``noise``) is there twice.
        """
        drawn = self._drawn_steps(task, count)
        samples = torch.arange(count).repeat_interleave(drawn.shape[1])
        found = [(step, samples[drawn.flatten() == step]) for step in range(task.schedule.steps)]
        return [(step, chosen) for step, chosen in found if len(chosen)]

    def _drawn_steps(self, task: Task, count: int) -> Tensor:
        """Return (S, D) the steps at which each sample is noised again.

        ``uniform``: different ones of the rollout's; ``stratified``: one of each of D equal parts of
        ``stratified_steps`` (AWM); ``noise``: independent ones, as often as they are noisy (RAM).
        """
        steps, generator = task.schedule.steps, task.generators["steps"]
        draws = min(self.config.forward_draws, steps)
        if self.config.forward_levels == "noise":
            weights = task.schedule.noise[:-1].expand(count, steps)
            return torch.multinomial(weights, self.config.forward_draws, True, generator=generator)
        if self.config.forward_levels == "stratified":
            first, last = stratified_steps(steps)
            return strata(count, first, last, min(draws, last - first), generator)
        return torch.rand((count, steps), generator=generator).argsort(1)[:, :draws]

    @torch.no_grad()
    def _old(self, task: Task, latents: Tensor, step: int, prompts: Tensor) -> Tensor:
        if not len(latents):
            return latents
        outputs = [
            task.policy.old_output(
                latents[chunk], task.schedule, step, task.conditions.select(prompts[chunk])
            )
            for chunk in torch.arange(len(latents)).split(task.policy.micro_batch)
        ]
        return torch.cat(outputs)

    def _slope(self, level: float) -> float:
        weight = self.method.weight
        return forward_slope(weight if is_forward(weight) else "forward_one", level)


def _own(task: Task, everybody: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return which of this process's ``count`` samples are among everybody's chosen ones, and where there."""
    first = task.ranks.rank * count
    mine = ((everybody >= first) & (everybody < first + count)).nonzero().flatten()
    return everybody[mine] - first, mine
