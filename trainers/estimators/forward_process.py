"""Forward-process guidance: finished pictures, noised again as in pre-training, weighed by their advantage.

With x_t = signal·x0 + noise·ε, the clean direction u (ε − x0 for flows, ε for diffusion) and the advantage Â
of the finished picture,

    G = Â·(u − o_old)

so no noise of the rollout is needed and any deterministic sampler will do. Rows carry w(u − o_old) as their
"noise", whereby the log-ratio −½w²‖Δo‖² + w⟨ε, Δo⟩ is the difference of two weighted denoising losses: the
one loss serves this family too. Sources: AWM (arXiv 2509.25050), DiffusionNFT (arXiv 2509.16117), Reinforce
Adjoint Matching.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.core.parameterization import clean_slope
from trainers.core.schedule import FLOW
from trainers.core.weights import forward_slope, is_forward
from trainers.estimators.contract import Estimator, Rollout, StepRows, Task
from trainers.estimators.scoring import score
from trainers.estimators.start import initial_latents, start_rows
from trainers.estimators.zeroth_order import compared
from trainers.samplers.kernels import ode
from trainers.samplers.rollout import trajectory


class ForwardProcess(Estimator):
    """Deterministic rollouts, re-noised finished pictures and their regression directions."""

    def collect(self, task: Task) -> Rollout:
        """Sample, score, noise again and attach directions; see ``Estimator``."""
        index, network = start_rows(task, self.config.group_size)
        final = trajectory(
            network,
            task.schedule,
            initial_latents(task, len(index)),
            ode,
            0.0,
            task.generators["transitions"],
            task.ranks.share,
        ).final
        rewards = score(task, final, index)
        values, silent = compared(self.config, self.method.groups, task.ranks, rewards)
        rows = self._rows(task, final, index, values.view(-1, 1))
        return Rollout(tuple(rows), rewards, silent, len(rewards))

    def _rows(self, task: Task, final: Tensor, index: Tensor, values: Tensor) -> list[StepRows]:
        rows = []
        for step, everybody in self._draws(task, task.ranks.count * len(final)):
            chosen, mine = _own(task, everybody, len(final))
            clean, prompts = final[chosen], index[chosen]
            shape = (len(everybody), *clean.shape[1:])
            noise = torch.randn(shape, generator=task.generators["transitions"])[mine].to(clean)
            signal, level = float(task.schedule.signal[step]), float(task.schedule.noise[step])
            latents = signal * clean + level * noise
            direction = noise - clean if task.schedule.family == FLOW else noise
            old = self._old(task, latents, step, prompts)
            rows.append(
                StepRows(
                    step,
                    latents,
                    prompts,
                    self._slope(level) * (direction - old).unsqueeze(1),
                    values[chosen],
                    weight=self._weight(task, step, direction - old),
                )
            )
        return rows

    def _draws(self, task: Task, count: int) -> list[tuple[int, Tensor]]:
        """Assign ``forward_draws`` different steps to each of everybody's samples; return each step's."""
        steps = task.schedule.steps
        draws = min(self.config.forward_draws, steps)
        order = torch.rand((count, steps), generator=task.generators["steps"]).argsort(1)[:, :draws]
        found = []
        for step in range(steps):
            chosen = (order == step).any(1).nonzero().flatten()
            if len(chosen):
                found.append((step, chosen))
        return found

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

    def _weight(self, task: Task, step: int, error: Tensor) -> Tensor | None:
        """Return 1/mean|x0 error| of each row, DiffusionNFT's normaliser at the old policy, or None."""
        if not self.method.normalised:
            return None
        slope = clean_slope(task.schedule, step)
        return 1.0 / (slope * error.abs().flatten(1).mean(1)).clamp(min=1e-5)


def _own(task: Task, everybody: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return which of this process's ``count`` samples are among everybody's chosen ones, and where there."""
    first = task.ranks.rank * count
    mine = ((everybody >= first) & (everybody < first + count)).nonzero().flatten()
    return everybody[mine] - first, mine
