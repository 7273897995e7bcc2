"""First-order guidance from one terminal reward gradient per trajectory.

∇_{x0} r(D(x0)) is computed once at the finished sample and reused at every trained step of its trajectory,
with an identity Jacobian (arXiv 2604.17415, section 5). In output space

    flow:       G = −∇r                (x̂0 = x − t v: a larger reward needs a smaller v)
    diffusion:  G = (σ²/k)·∇r

The gradient's scale differs by orders of magnitude between rewards, so it is divided by its root mean square
over the first rollout, once: ``reward_scale`` then means the size of the guidance in output units, and
β = 1/scale stays constant during the run, as the theory asks.
"""

from __future__ import annotations

from torch import Tensor

from trainers.core.schedule import FLOW
from trainers.core.weights import guidance_strength
from trainers.errors import FaultError
from trainers.estimators.contract import Estimator, Rollout, StepRows, Task
from trainers.estimators.scoring import score_with_gradient
from trainers.estimators.zeroth_order import initial_latents, start_rows, training_steps
from trainers.samplers.kernels import ode, stochastic_kernel
from trainers.samplers.rollout import trajectory


class TerminalGradient(Estimator):
    """Rollouts and terminal reward gradients of the first-order rows."""

    def collect(self, task: Task) -> Rollout:
        """Sample, differentiate and attach guidance; see ``Estimator``."""
        index, network = start_rows(task, self.config.roots_per_prompt)
        kernel = ode if self.method.branching == "none" else stochastic_kernel(task.schedule.family)
        result = trajectory(
            network,
            task.schedule,
            initial_latents(task, len(index)),
            kernel,
            self.config.noise_level,
            task.generators["transitions"],
        )
        rewards, gradients = score_with_gradient(task, result.final, index)
        direction = self._calibrated(gradients)
        # A stochastic kernel may be degenerate at the last step; a deterministic rollout has no such step,
        # and the low-noise end is where the terminal gradient fits best.
        usable = task.schedule.steps - (self.method.branching != "none")
        steps = training_steps(task, self.config.train_fraction, usable)
        rows = tuple(
            StepRows(step, result.states[step], index, guidance=self._guidance(task, step, direction))
            for step in steps
        )
        return Rollout(rows, rewards, 0, len(rewards))

    def _calibrated(self, gradients: Tensor) -> Tensor:
        """Return the gradients in units of their first root mean square, times ``reward_scale``."""
        if "gradient_rms" not in self.state.values:
            rms = float(gradients.pow(2).mean().sqrt())
            if not rms > 0.0 or rms == float("inf"):
                raise FaultError(
                    f"The reward's gradient has root mean square {rms:g} on the first rollout, so there is "
                    "nothing to follow. Choose another reward or a zeroth-order method."
                )
            self.state.values["gradient_rms"] = rms
        return gradients * (self.config.reward_scale / self.state.values["gradient_rms"])

    def _guidance(self, task: Task, step: int, direction: Tensor) -> Tensor:
        schedule = task.schedule
        strength = guidance_strength(self.method.strength, float(schedule.signal[step]))
        if schedule.family == FLOW:
            return -strength * direction
        coefficients = stochastic_kernel(schedule.family)(schedule, step, self.config.noise_level)
        return strength * (coefficients.std**2 / coefficients.output) * direction
