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

from trainers.core.advantages import zero_spread
from trainers.core.parameterization import clean_slope
from trainers.core.schedule import FLOW
from trainers.core.weights import forward_slope, is_forward
from trainers.estimators.contract import Estimator, Rollout, StepRows, Task
from trainers.estimators.scoring import score
from trainers.estimators.start import initial_latents, start_rows
from trainers.estimators.zeroth_order import group_advantages, grouped
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
        ).final
        rewards = score(task, final, index)
        groups = grouped(rewards, self.config.group_size, self.method.groups)
        values = group_advantages(self.config, groups).view(-1, 1)
        rows = self._rows(task, final, index, values)
        return Rollout(tuple(rows), rewards, int(zero_spread(groups).sum()), len(rewards))

    def _rows(self, task: Task, final: Tensor, index: Tensor, values: Tensor) -> list[StepRows]:
        rows = []
        for step, chosen in self._draws(task, len(final)):
            clean, prompts = final[chosen], index[chosen]
            noise = torch.randn(clean.shape, generator=task.generators["transitions"]).to(clean)
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
        """Assign ``forward_draws`` different steps to each sample; return each step's samples."""
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
