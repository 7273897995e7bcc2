"""The zeroth-order methods' own losses, written from their papers' formulas and log-densities.

Nothing here comes from the engine but the rows of the table that say which method is meant; the tests of
``test_objective.py`` hold the engine against it.
"""

import pytest
import torch
from torch.distributions import Normal

from tests.core.toys import (
    SHAPE,
    ToyNetwork,
    alphas,
    levels,
    moved,
    randn,
    schedule_of,
)
from tests.samplers.published import STEPS, stochastic_step
from trainers.config import RunConfig
from trainers.core.loss import matching
from trainers.estimators.contract import StepRows
from trainers.methods import METHODS
from trainers.objective import Objective

ROWS, BRANCHES, NOISE, BETA = 8, 4, 0.7, 0.3

FORMS = ("ratio", "matching")
ROWS_OF_TABLE = [
    (method, family) for method in METHODS for family in method.families if method.branching != "none"
]
CASES = [
    pytest.param(method.name, family, id=f"{method.name}, {family}")
    for method, family in ROWS_OF_TABLE
    if method.order == "zeroth" and method.objective in FORMS
]
MATCHING = [case for case in CASES if METHODS.get(case.values[0]).objective == "matching"]
# Rows whose log-ratio is the kernel's own.
KERNEL = [case for case in CASES if METHODS.get(case.values[0]).weight not in ("schedule_mean", "interval")]
# Steps that a row trains: not DDIM's last one, which adds no noise, and of flows' only where the row says so.
TRAINED = [
    pytest.param(*case.values, step, id=f"{case.id}, {step}")
    for case in CASES
    for step in range(STEPS)
    if step < STEPS - 1 or (METHODS.get(case.values[0]).last_step and case.values[1] == "flow")
]


class Study:
    """A method on its family's schedule with random rows, an old, a present and a base network."""

    def __init__(self, method, family, step, size=0.0, clip=100.0, branches=BRANCHES, beta=BETA):
        self.family, self.step, self.beta = family, step, beta
        self.method = METHODS.get(method)
        self.schedule = schedule_of(family, STEPS)
        self.use_clip(clip)
        self.old, self.base = ToyNetwork(seed=1), ToyNetwork(seed=2)
        self.network = moved(self.old, size)
        count = 1 if self.method.branching == "trajectory" else branches
        self.latents = randn(ROWS, *SHAPE, seed=3)
        self.noise = randn(ROWS, count, *SHAPE, seed=4)
        self.advantages = randn(ROWS, count, seed=5)
        index = torch.arange(ROWS)
        self.rows = StepRows(step, self.latents, index, self.noise, self.advantages)

    def use_clip(self, clip):
        self.clip = clip
        config = RunConfig(noise_level=NOISE, clip_range=clip, kl_weight=self.beta)
        self.objective = Objective(self.method, config, self.schedule)

    def cut_half(self):
        """Choose the trust region such that about half of the branches that improved lie beyond it."""
        output, old, _ = self.outputs()
        ratio = TRUSTED.get(self.method.name, kernel_ratio)(self, output, old).detach()
        self.use_clip(1.001 * float(ratio.abs().median()))

    def outputs(self):
        time = float(self.schedule.noise[self.step])
        with torch.no_grad():
            old, base = self.old(self.latents, time), self.base(self.latents, time)
        return self.network(self.latents, time), old, base

    def engine(self):
        return self.objective(self.rows, *self.outputs()).loss.mean()

    def kernel(self, output):
        return stochastic_step(self.family)(self.step, self.latents, output, NOISE)

    def k(self):
        output = torch.zeros_like(self.latents).requires_grad_(True)
        (slope,) = torch.autograd.grad(self.kernel(output)[0].sum(), output)
        return float(slope.flatten()[0])

    def mean_slope(self):
        """Mean of |k/σ| over all steps that inject noise, from the published kernels alone."""
        return mean_of(abs(study.k()) / study.std() for study in self.noisy(STEPS))

    def mean_std(self):
        """Mean of σ over the steps that inject noise but the last."""
        return mean_of(study.std() for study in self.noisy(STEPS - 1))

    def noisy(self, steps):
        """The study at each of the first steps that inject noise; DDIM's last one does not."""
        return [study for step in range(steps) if (study := replace_step(self, step)).std() > 0]

    def std(self):
        return float(self.kernel(self.latents)[1])

    def delta(self):
        """The time a step covers: the fall of t, or of the training step as a share of the first."""
        if self.family == "flow":
            return float(levels(STEPS)[self.step] - levels(STEPS)[self.step + 1])
        times = [*alphas(STEPS)[0].tolist(), 0]
        return (times[self.step] - times[self.step + 1]) / times[0]

    def zeta(self):
        """PCPO's factor: ζΔ has the mean of |k/σ| over all steps but the last, which is never trained."""
        trained = self.noisy(STEPS - 1)
        return sum(abs(study.k()) / study.std() for study in trained) / sum(
            study.delta() for study in trained
        )

    def log_ratio(self, output, old):
        """(B, K): log N(x'; μ_θ, σ²) − log N(x'; μ_old, σ²), means over elements, at x' = μ_old + σε."""
        (center, std), (before, _) = self.kernel(output), self.kernel(old)
        sample = before.unsqueeze(1) + std * self.noise
        laws = [Normal(mean.unsqueeze(1), std) for mean in (center, before)]
        new, previous = (law.log_prob(sample).mean((2, 3, 4)) for law in laws)
        return new - previous

    def kl(self, output, base):
        """(B,): KL of the two kernels."""
        (center, std), (reference, _) = self.kernel(output), self.kernel(base)
        return ((center - reference) ** 2 / (2 * std**2)).mean((1, 2, 3))

    def penalty(self, output, base):
        """(B,): what the row multiplies by β, from its published program."""
        return PENALTIES.get((self.method.name, self.family), Study.kl)(self, output, base)

    def held(self, output, base):
        """(B,): the same where the row holds its branches; only anchors are held by ``kl = anchors``."""
        return 0.0 if self.method.name in ANCHORED_ONLY else self.penalty(output, base)

    def published(self):
        output, old, base = self.outputs()
        pull = PUBLISHED[self.method.name](self, output, old)
        return (pull.mean(1) + self.beta * self.held(output, base)).mean()

    def squared(self):
        """The row of reward score matching: (γG of each branch, W1) through the one squared loss."""
        output, old, base = self.outputs()
        std, k = float(self.kernel(output)[1]), self.k()
        slope, extra = k / std, 1.0
        if self.method.name in ("rsm_zeroth_order_flow", "grpo_guard"):
            extra = std / self.delta()
        if self.method.name == "tempflow_grpo":
            extra = std / self.mean_std()
        if self.method.name in ("rsm_zeroth_order_diffusion", "pcpo"):
            slope = -self.mean_slope()
        if self.method.name == "pcpo_flow":
            slope = -self.zeta() * self.delta()
        guidance = self.advantages[:, :, None, None, None] * self.noise / slope
        branches = [matching(output, old, guidance[:, i]) for i in range(guidance.shape[1])]
        pull = extra * slope**2 / 2 * torch.stack(branches, 1)
        weight = k**2 / (2 * std**2)
        if self.method.kl_scale == "rate" and self.family == "flow":
            weight *= self.delta()
        held = weight * ((output - base) ** 2).mean((1, 2, 3))
        beta = 0.0 if self.method.kl == "anchors" else self.beta
        return (pull.mean(1) + beta * held).mean()


def mean_of(values):
    values = list(values)
    return sum(values) / len(values)


def replace_step(study, step):
    other = object.__new__(Study)
    other.__dict__ = {**study.__dict__, "step": step}
    return other


def kernel_ratio(study, output, old):
    """ℓ of the kernel."""
    return study.log_ratio(output, old)


def fair_ratio(study, output, old):
    """σ²·ℓ, with τ = a√(t/(1−t)) and σ² = τ²Δ."""
    t = levels(STEPS)[study.step]
    variance = NOISE**2 * t / (1 - (levels(STEPS)[1] if t == 1 else t)) / STEPS
    return variance * study.log_ratio(output, old)


def constant_ratio(study, output, old):
    """ℓ whose k/σ is replaced by its schedule mean w̄: −½w̄²‖Δo‖² − w̄⟨ε, Δo⟩ (k < 0)."""
    mean, change = study.mean_slope(), output - old
    inner = (change.unsqueeze(1) * study.noise).mean((2, 3, 4))
    return -mean * inner - mean**2 / 2 * (change**2).mean((1, 2, 3)).unsqueeze(1)


def grpo_loss(study, output, old):
    """−min(ρÂ, clip(ρ, 1−c, 1+c)Â)."""
    rho = kernel_ratio(study, output, old).exp()
    bounded = torch.clamp(rho, 1 - study.clip, 1 + study.clip)
    return -torch.minimum(rho * study.advantages, bounded * study.advantages)


def hinge(study, ratio):
    """max(0, c|Â| − Âℓ)."""
    return (study.clip * study.advantages.abs() - study.advantages * ratio).clamp(min=0)


def rsm_flow_loss(study, output, old):
    """Matching loss under the fair clip: max(0, c|Â| − Âσ²ℓ)/σ² · τ/√Δ."""
    t, delta = levels(STEPS)[study.step], 1 / STEPS
    tau = NOISE * (t / (1 - (levels(STEPS)[1] if t == 1 else t))).sqrt()
    return hinge(study, fair_ratio(study, output, old)) / (tau**2 * delta) * tau / delta**0.5


def rsm_diffusion_loss(study, output, old):
    """Matching loss with PCPO's constant weight."""
    return hinge(study, constant_ratio(study, output, old))


def noise_aware_loss(study, output, old):
    """TempFlow-GRPO: GRPO's loss, a step weighed by the noise it injects."""
    return grpo_loss(study, output, old) * study.std() / study.mean_std()


def interval_ratio(study, output, old):
    """ℓ whose k/σ is replaced by −ζΔ."""
    factor, change = study.zeta() * study.delta(), output - old
    inner = (change.unsqueeze(1) * study.noise).mean((2, 3, 4))
    return -factor * inner - factor**2 / 2 * (change**2).mean((1, 2, 3)).unsqueeze(1)


def guard_ratio(study, output, old):
    """(ℓ + ‖Δμ‖²/(2σ²))·σ."""
    (center, std), (before, _) = study.kernel(output), study.kernel(old)
    drift = ((center - before) ** 2 / (2 * std**2)).mean((1, 2, 3))
    return (study.log_ratio(output, old) + drift.unsqueeze(1)) * std


def guard_loss(study, output, old):
    """−min(ρÂ, clip(ρ, 1−c, 1+c)Â)/Δ with the normalised ratio."""
    rho = guard_ratio(study, output, old).exp()
    bounded = torch.clamp(rho, 1 - study.clip, 1 + study.clip)
    return -torch.minimum(rho * study.advantages, bounded * study.advantages) / study.delta()


def pcpo_flow_loss(study, output, old):
    """The clipped log-ratio with interval weights."""
    return hinge(study, interval_ratio(study, output, old))


PUBLISHED = {
    "grpo": grpo_loss,
    "ppo": grpo_loss,
    "branch_grpo": grpo_loss,
    "custom": grpo_loss,
    "tempflow_grpo": noise_aware_loss,
    "grpo_guard": guard_loss,
    "pcpo": rsm_diffusion_loss,
    "pcpo_flow": pcpo_flow_loss,
    "rsm_zeroth_order_flow": rsm_flow_loss,
    "rsm_zeroth_order_diffusion": rsm_diffusion_loss,
}
TRUSTED = {
    "pcpo": constant_ratio,
    "pcpo_flow": interval_ratio,
    "grpo_guard": guard_ratio,
    "rsm_zeroth_order_flow": fair_ratio,
    "rsm_zeroth_order_diffusion": constant_ratio,
}


def rate_penalty(study, output, base):
    """‖μ_θ − μ_ref‖²/(2τ²) with τ = a√(t/(1−t)), as Flow-GRPO's and RSM's programs write it: no Δ below."""
    t = levels(STEPS)[study.step]
    tau = NOISE * (t / (1 - (levels(STEPS)[1] if t == 1 else t))).sqrt()
    (center, _), (reference, _) = study.kernel(output), study.kernel(base)
    return ((center - reference) ** 2 / (2 * tau**2)).mean((1, 2, 3))


def output_penalty(study, output, base):
    """‖ε̂_θ − ε̂_ref‖², of which RSM's program takes ½·4.5² as part of its β."""
    return ((output - base) ** 2).mean((1, 2, 3))


PENALTIES = {
    ("grpo", "flow"): rate_penalty,
    ("custom", "flow"): rate_penalty,
    ("pcpo_flow", "flow"): rate_penalty,
    ("rsm_zeroth_order_flow", "flow"): rate_penalty,
    ("rsm_zeroth_order_diffusion", "diffusion"): output_penalty,
}
ANCHORED_ONLY = ("rsm_zeroth_order_diffusion",)
HOLDS_ANCHORS = ("rsm_zeroth_order_flow", "rsm_zeroth_order_diffusion")
