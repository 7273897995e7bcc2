"""Zeroth-order methods from the formulas of their papers and programs: kernels, losses and statistics.

Nothing here comes from the engine; of a recording only the schedule and the settings are read.
Sources: Flow-GRPO (arXiv 2505.05470), DDIM (2010.02502), DDPO (2305.13301), TempFlow-GRPO (2508.04324),
GRPO-Guard (2510.22319), PCPO (2509.25774), DPOK (2305.16381), reward score matching (2604.17415).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Kernel:
    """x' ~ N(state·x + slope·o, std²): one step, which covers the time ``delta``."""

    state: float
    slope: float
    std: float
    delta: float

    def mean(self, latents, output):
        return self.state * latents.double() + self.slope * output

    @property
    def rate(self):
        """τ of the noise τ²Δ of a step."""
        return self.std / self.delta**0.5


def flow_grpo(schedule, step, level):
    """Flow-GRPO: s = a√(t/(1−t)), where the second level stands for t = 1 in the denominator."""
    t, after = float(schedule.noise[step]), float(schedule.noise[step + 1])
    dt, s = after - t, level * (t / (1 - (after if t == 1 else t))) ** 0.5
    pull = (1 + s**2 * (1 - t) / (2 * t)) * dt
    return Kernel(1 + s**2 / (2 * t) * dt, pull, s * (-dt) ** 0.5, -dt)


def ddim(schedule, step, eta):
    """DDIM through the predicted x0; its variance is DDPM's for η = 1."""
    alpha, after = float(schedule.signal[step]) ** 2, float(schedule.signal[step + 1]) ** 2
    std = eta * ((1 - after) / (1 - alpha) * (1 - alpha / after)) ** 0.5
    grown = (after / alpha) ** 0.5
    return Kernel(grown, (1 - after - std**2) ** 0.5 - grown * (1 - alpha) ** 0.5, std, float("nan"))


class Constants:
    """The kernels of a schedule and the numbers that stand in the place of a step's own."""

    def __init__(self, recording):
        kernel = flow_grpo if recording.family == "flow" else ddim
        steps = range(recording.schedule.steps)
        self.kernels = [kernel(recording.schedule, i, recording.config.noise_level) for i in steps]
        noisy = [kernel for kernel in self.kernels if kernel.std > 0]
        weights = [abs(kernel.slope) / kernel.std for kernel in noisy]
        self.mean_weight = sum(weights) / len(weights)  # PCPO: 0.5169 for SD1.5 and 50 steps
        early = self.kernels[:-1]
        self.mean_std = sum(kernel.std for kernel in early) / len(
            early
        )  # TempFlow: 1/2.25 for SD3.5 and 10 steps
        slopes = sum(abs(kernel.slope) / kernel.std for kernel in early)
        self.zeta = recording.config.interval_weight or slopes / sum(kernel.delta for kernel in early)


# -- losses of B states with K branches each, (B, K) --------------------------------------------------


@dataclass
class Moved:
    """Where K branches went from each of B states, and what two policies thought of it.

    Attributes:
        kernel: The step.
        constants: Of the schedule.
        centers: (B, 1, C, H, W) means under the trained policy, with gradient.
        before: (B, 1, C, H, W) means under the policy of the rollout.
        change: (B, 1, C, H, W) o_θ − o_old.
        after: (B, K, C, H, W) where they went.
        advantages: (B, K).
        clip: Half width of the trust region.
    """

    kernel: Kernel
    constants: Constants
    centers: torch.Tensor
    before: torch.Tensor
    change: torch.Tensor
    after: torch.Tensor
    advantages: torch.Tensor
    clip: float

    @property
    def noise(self):
        return (self.after - self.before) / self.kernel.std

    def log_ratio(self):
        """log N(x'; μ_θ, σ²) − log N(x'; μ_old, σ²), means over elements."""
        new, old = ((self.after - center) ** 2 for center in (self.centers, self.before))
        return mean_of(old - new) / (2 * self.kernel.std**2)

    def weighed_ratio(self, weight):
        """The same with another |k/σ|: −½‖wΔo‖² − w⟨Δo, z⟩."""
        shift = weight * self.change
        return -0.5 * mean_of(shift**2) - mean_of(shift * self.noise)

    def ppo(self, ratio):
        """−min(rÂ, clip(r, 1 ± c)Â) of a log-ratio."""
        r, a = ratio.exp(), self.advantages
        return torch.maximum(-a * r, -a * r.clamp(1 - self.clip, 1 + self.clip))

    def hinge(self, ratio):
        """max(0, c|Â| − Â·ratio)."""
        return (self.clip * self.advantages.abs() - self.advantages * ratio).clamp(min=0)


def mean_of(values):
    """(B, K) means over elements."""
    return values.flatten(2).mean(2)


def grpo(moved):
    return moved.ppo(moved.log_ratio())


def tempflow(moved):
    """GRPO's loss, weighed by the noise of the step."""
    return moved.ppo(moved.log_ratio()) * moved.kernel.std / moved.constants.mean_std


def guard(moved):
    """r = exp((ℓ + ‖Δμ‖²/2σ²)·σ), the loss over Δ."""
    drift = mean_of((moved.centers - moved.before) ** 2) / (2 * moved.kernel.std**2)
    return moved.ppo((moved.log_ratio() + drift) * moved.kernel.std) / moved.kernel.delta


def fair_clip(moved):
    """The clip acts on σ²ℓ; over σ² again, times τ/√Δ."""
    kernel = moved.kernel
    return moved.hinge(kernel.std**2 * moved.log_ratio()) / kernel.std**2 * kernel.rate / kernel.delta**0.5


def constant_weight(moved):
    return moved.hinge(moved.weighed_ratio(moved.constants.mean_weight))


def interval_weight(moved):
    return moved.hinge(moved.weighed_ratio(moved.constants.zeta * moved.kernel.delta))


def policy_gradient(moved):
    """Its gradient is −Â·∇ log N(x'; μ_θ, σ²) with x' − μ kept at the drawn noise."""
    return -moved.advantages * mean_of(moved.noise * (moved.centers - moved.before)) / moved.kernel.std


# -- statistics ---------------------------------------------------------------------------------------


def standardised(rewards, epsilon, std=None, unbiased=False):
    """(r − mean)/(std + ε) of groups (G, M); exact zeros where a group is all alike."""
    alike = rewards.amax(1, keepdim=True) == rewards.amin(1, keepdim=True)
    spread = rewards.std(1, correction=int(unbiased), keepdim=True) if std is None else std
    return torch.where(alike, 0.0, (rewards - rewards.mean(1, keepdim=True)) / (spread + epsilon))


KINDS = {
    "mean": lambda groups, tilt: groups - groups.mean(1, keepdim=True),
    "raw": lambda groups, tilt: groups,
    "tilted": lambda groups, tilt: groups.shape[1] * torch.softmax(groups / tilt, 1) - 1,
}


@dataclass
class Tracker:
    """DDPO's statistics: a prompt's latest rewards once there are 16 of them, the batch's until then."""

    size: int

    def __post_init__(self):
        self.seen = {}
        self.met = {"batch": 0, "own": 0}

    def advantages(self, prompts, rewards):
        found = torch.empty_like(rewards)
        for prompt in prompts.unique().tolist():
            mine = prompts == prompt
            kept = self.seen.setdefault(prompt, deque(maxlen=self.size))
            kept.extend(rewards[mine].tolist())
            own = len(kept) >= 16
            self.met["own" if own else "batch"] += 1
            known = torch.tensor(list(kept), dtype=torch.float64) if own else rewards
            found[mine] = (rewards[mine] - known.mean()) / (known.std(correction=0) + 1e-6)
        return found
