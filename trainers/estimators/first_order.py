"""First-order guidance: where the reward's gradient is read, and how it becomes guidance.

``lookahead`` says where ∇r is taken: at the finished sample, once a trajectory (``terminal``, arXiv
2604.17415 section 5); at the present state's clean estimate with an identity Jacobian (``current``, VGG-Flow,
arXiv 2512.05116); or at the next state, through the network and an m-step deterministic lookahead (``next``,
residual ∇-DB, arXiv 2412.07775, and SQDF, arXiv 2512.04559). ``form`` says what it means in output space:

    clean:       G = −∇r           (x̂0 falls with the output: a larger reward needs a smaller output)
    transition:  G = (σ²/k)·∇r

The gradient's scale differs by orders of magnitude between rewards, so it is divided by its root mean square
over the first rollout, once: ``reward_scale`` then means the size of the guidance in output units, and
β = 1/scale stays constant during the run, as the theory asks.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trainers.core.parameterization import predict_clean
from trainers.core.transition import mean
from trainers.core.weights import guidance_strength
from trainers.errors import FaultError
from trainers.estimators.contract import Estimator, Rollout, StepRows, Task
from trainers.estimators.lookahead import gradient_at, lookahead_levels
from trainers.estimators.replay import Replay
from trainers.estimators.scoring import score, score_with_gradient
from trainers.estimators.start import (
    bound_network,
    initial_latents,
    sample_numbers,
    start_rows,
    strata,
    training_steps,
)
from trainers.ranks import Ranks
from trainers.samplers.kernels import ode
from trainers.samplers.rollout import Trajectory, trajectory
from trainers.steps import stochastic_steps

WINDOW = 256  # gradient norms over which the running quantile is taken


class FirstOrder(Estimator):
    """Rollouts and reward gradients of the first-order rows."""

    def collect(self, task: Task) -> Rollout:
        """Sample, differentiate and attach guidance; see ``Estimator``."""
        index, network = start_rows(task, self.config.roots_per_prompt)
        noisy = self.method.branching == "trajectory"
        result = trajectory(
            network,
            task.schedule,
            initial_latents(task, len(index), self.config.initial_noise == "shared"),
            self.kernel(task) if noisy else ode,
            self.config.noise_level,
            task.generators["transitions"],
            task.ranks.share,
        )
        # A deterministic rollout has no degenerate step, and its end is where the terminal gradient fits
        # best.
        steps = task.schedule.steps
        usable = stochastic_steps(self.method, self.config, task.schedule) if noisy else steps
        chosen = self._chosen(task, len(index), usable)
        if self.method.lookahead == "terminal":
            rewards, gradients = score_with_gradient(task, result.final, index)
        else:
            rewards, gradients = score(task, result.final, index), None
        rows = [self._row(task, result, step, index, mine, gradients) for step, mine in chosen]
        rows += self._replayed(task, rows) if self.method.lookahead == "next" else []
        return Rollout(self._finished(task, rows), rewards, 0, len(rewards))

    def _chosen(self, task: Task, count: int, usable: int) -> list[tuple[int, Tensor]]:
        """Return the trained steps, each with the numbers of this process's samples that it trains."""
        fraction, generator = self.config.train_fraction, task.generators["steps"]
        everybody = task.ranks.count * count
        if self.method.steps == "shared":
            shared = torch.tensor(training_steps(task, fraction, usable))
            drawn = shared.expand(everybody, len(shared))
        elif self.method.steps == "uniform":
            some = max(1, round(fraction * usable))
            drawn = torch.rand((everybody, usable), generator=generator).argsort(1)[:, :some]
        else:
            parts = strata(everybody, 0, usable, max(1, round(fraction * usable)), generator)
            drawn = torch.cat([parts, torch.full((everybody, 1), usable - 1)], 1)
        samples = torch.arange(everybody).repeat_interleave(drawn.shape[1])
        mine = task.ranks.share.rows(everybody)
        found = []
        for step in drawn.unique().tolist():
            chosen = samples[drawn.flatten() == step]
            own = chosen[(chosen >= mine.start) & (chosen < mine.stop)] - mine.start
            found.append((step, own.to(task.policy.model.device)))
        return found

    def stored_prompts(self) -> Tensor:
        """Return the prompts of the replay buffer; see ``Estimator``."""
        return Replay(self.state.tensors, self.config.replay_size).prompts

    def _row(
        self,
        task: Task,
        result: Trajectory,
        step: int,
        index: Tensor,
        chosen: Tensor,
        terminal: Tensor | None,
    ) -> StepRows:
        """Return the rows of one step, with the raw reward gradient in the place of the guidance."""
        states, prompts = result.states[step][chosen], index[chosen]
        if terminal is not None:
            gradients = terminal[chosen]
        elif not len(chosen):
            gradients = states
        elif self.method.lookahead == "current":
            clean = predict_clean(task.schedule, step, states, result.outputs[step][chosen])
            gradients = score_with_gradient(task, clean, prompts)[1]
        else:
            after = result.states[step + 1] if step + 1 < task.schedule.steps else result.final
            gradients = self._ahead(task, after[chosen], step + 1, prompts)
        numbers = sample_numbers(task, len(index))[chosen]
        return StepRows(step, states, prompts, guidance=gradients, sample=numbers)

    def _ahead(self, task: Task, latents: Tensor, level: int, index: Tensor) -> Tensor:
        levels = lookahead_levels(level, task.schedule.steps, self.config.lookahead_steps)
        return gradient_at(task, latents, levels, index, self.method.lookahead_network == "base")

    def _replayed(self, task: Task, rows: list[StepRows]) -> list[StepRows]:
        """Store the new states, and return rows that go on from stored ones with fresh noise."""
        if not self.config.replay_size:
            return []
        replay, ranks = Replay(self.state.tensors, self.config.replay_size), task.ranks
        new = sum(ranks.exchange(sum(len(row.latents) for row in rows)))
        count = round(self.config.replay_share * new)
        found: list[StepRows] = []
        number = ranks.count * len(task.chosen) * self.config.roots_per_prompt
        for step, latents, index in replay.draw(count, task.generators["steps"]):
            mine = ranks.share.rows(len(latents))
            noise = torch.randn(latents.shape, generator=task.generators["transitions"])
            again = self._again(task, step, latents[mine], index[mine], noise[mine])
            own = torch.arange(number + mine.start, number + mine.stop, device=again.latents.device)
            found.append(replace(again, sample=own))  # not of the new trajectories: numbers after theirs
            number += len(latents)
        for row in rows:  # every process keeps everybody's states, so any number of them can go on
            states, index = ranks.gather(row.latents), ranks.gather(row.prompt_index)
            replay.store(row.step, states, index, task.generators["steps"])
        return found

    def _again(self, task: Task, step: int, latents: Tensor, index: Tensor, noise: Tensor) -> StepRows:
        """Return rows whose gradient is read after one step from stored states, with this noise."""
        device = task.policy.model.device
        latents, index, noise = latents.to(device), index.to(device), noise.to(device, latents.dtype)
        if not len(latents):
            return StepRows(step, latents, index, guidance=latents)
        output = bound_network(task, index)(latents, step, torch.arange(len(latents), device=device))
        coefficients = self.kernel(task)(task.schedule, step, self.config.noise_level)
        after = mean(coefficients, latents, output) + coefficients.std * noise
        return StepRows(step, latents, index, guidance=self._ahead(task, after, step + 1, index))

    def _finished(self, task: Task, rows: list[StepRows]) -> tuple[StepRows, ...]:
        """Turn raw gradients into guidance: in units of the first rollout, bounded, in output space."""
        unit = self.config.reward_scale / self._gradient_rms(rows, task.ranks)
        finished = []
        for row in rows:
            gradients = self._bounded(row.guidance * unit, task.ranks)
            finished.append(replace(row, guidance=self._factor(task, row.step) * gradients))
        return tuple(finished)

    def _gradient_rms(self, rows: list[StepRows], ranks: Ranks) -> float:
        """Return the unit of the gradients: their first root mean square, or 1."""
        if self.config.gradient_units == "reward":
            return 1.0
        if "gradient_rms" not in self.state.values:
            everybody = [ranks.gather(row.guidance) for row in rows]
            rms = float(torch.stack([values.pow(2).mean() for values in everybody]).mean().sqrt())
            if not rms > 0.0 or rms == float("inf"):
                raise FaultError(
                    f"The reward's gradient has root mean square {rms:g} on the first rollout, so there is "
                    "nothing to follow. Choose another reward or a zeroth-order method."
                )
            self.state.values["gradient_rms"] = rms
        return self.state.values["gradient_rms"]

    def _bounded(self, gradients: Tensor, ranks: Ranks) -> Tensor:
        """Rescale gradients whose norm is beyond the running quantile of norms (VGG-Flow's clipping)."""
        quantile = self.config.gradient_quantile
        if quantile >= 1.0:
            return gradients
        norms = gradients.flatten(1).norm(dim=1)
        new = ranks.gather(norms).cpu()
        seen = torch.cat([self.state.tensors.get("gradient_norms", new[:0]), new])[-WINDOW:]
        self.state.tensors["gradient_norms"] = seen
        limit = float(torch.quantile(seen, quantile))
        shrink = (limit / norms.clamp(min=1e-30)).clamp(max=1.0)
        return gradients * shrink.view(-1, *[1] * (gradients.ndim - 1))

    def _factor(self, task: Task, step: int) -> float:
        """Return γ times the factor from ∇r to G."""
        schedule, config = task.schedule, self.config
        strength = guidance_strength(
            self.method.strength,
            float(schedule.signal[step]),
            float(schedule.signal[step + 1]),
            config.kl_weight,
            config.discount,
            schedule.steps - 1 - step,
        )
        if self.method.form == "clean":
            return -strength
        coefficients = self.kernel(task)(schedule, step, config.noise_level)
        return strength * coefficients.std**2 / coefficients.output
