"""Rollouts: from initial noise to finished latents, keeping what the loss needs on the way.

``trajectory`` draws every step from one kernel; ``branch_tree`` lets such trajectories split on the way.
``branch_per_step`` follows deterministic root paths and, at chosen steps, lets K noisy branches leave each
root; every branch then runs deterministically to the end.
All states that are at the same step pass through the network together, whatever step they branched at, so
the cost is Σ_i K_i (T − 1 − i) + (last branching step + 1) rows a root, or T − 1 in the place of the last
part where the whole path is wanted. No gradients flow here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.core.parameterization import predict_clean
from trainers.core.schedule import Schedule
from trainers.core.share import WHOLE, Share
from trainers.core.transition import Coefficients, draw, mean, noise_like
from trainers.samplers.kernels import Kernel, ode

NetworkOutput = Callable[[Tensor, int, Tensor], Tensor]


@dataclass(frozen=True)
class Trajectory:
    """Whole trajectories of B samples.

    Attributes:
        states: T tensors (B, C, H, W), the state before each step.
        noises: T tensors (B, C, H, W), the noise drawn at each step; unused where σ = 0.
        outputs: T tensors (B, C, H, W), the network's output at each state.
        final: (B, C, H, W) finished latents.
    """

    states: tuple[Tensor, ...]
    noises: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    final: Tensor


@dataclass(frozen=True)
class Branching:
    """Branches of N roots.

    Attributes:
        parents: Step → (N, C, H, W) root states that branched there.
        noises: Step → (N, K, C, H, W) noise of the branches.
        leaves: Step → (N, K, C, H, W) finished latents of the branches that left at that step.
        path: Step → (N, C, H, W) states of the roots' deterministic path where nothing branched.
    """

    parents: dict[int, Tensor]
    noises: dict[int, Tensor]
    leaves: dict[int, Tensor]
    path: dict[int, Tensor]


def trajectory(
    network: NetworkOutput,
    schedule: Schedule,
    latents: Tensor,
    kernel: Kernel,
    noise_level: float,
    generator: torch.Generator,
    share: Share = WHOLE,
) -> Trajectory:
    """Run every sample through all T steps of one kernel.

    Args:
        network: (latents (B, C, H, W), step, sample index (B,)) → output (B, C, H, W).
        schedule: The noise levels.
        latents: (B, C, H, W) initial noise.
        kernel: The transition kernel of every step.
        noise_level: The kernel's noise level.
        generator: Source of the transition noise.
        share: Which part of the batch the samples are.
    """
    index = torch.arange(len(latents), device=latents.device)
    states, noises, outputs = [], [], []
    for step in range(schedule.steps):
        coefficients = kernel(schedule, step, noise_level)
        noise = _step_noise(latents, coefficients, generator, share)
        states.append(latents)
        noises.append(noise)
        outputs.append(network(latents, step, index))
        latents = draw(coefficients, latents, outputs[-1], noise).sample
    return Trajectory(tuple(states), tuple(noises), tuple(outputs), latents)


def finished(network: NetworkOutput, schedule: Schedule, latents: Tensor, solver: str = "euler") -> Tensor:
    """Return finished latents (B, C, H, W) of a deterministic rollout that keeps no state.

    Args:
        network: (latents (B, C, H, W), step, sample index (B,)) → output (B, C, H, W).
        schedule: The noise levels.
        latents: (B, C, H, W) initial noise.
        solver: ``euler`` (DDIM for diffusion), or ``dpm2``: the multistep DPM-Solver++ of second order in the
            clean estimate (arXiv 2211.01095, algorithm 2), whose first and last steps are of first order.
    """
    index = torch.arange(len(latents), device=latents.device)
    previous = None
    for step in range(schedule.steps):
        output = network(latents, step, index)
        if solver == "euler":
            latents = mean(ode(schedule, step), latents, output)
            continue
        clean = predict_clean(schedule, step, latents, output)
        latents = _dpm2_step(schedule, step, latents, clean, previous)
        previous = clean
    return latents


def _dpm2_step(
    schedule: Schedule, step: int, latents: Tensor, clean: Tensor, previous: Tensor | None
) -> Tensor:
    signal, noise = schedule.signal.tolist(), schedule.noise.tolist()
    moved = noise[step + 1] / noise[step]
    weight = signal[step + 1] - moved * signal[step]
    latents = moved * latents + weight * clean
    first = step == 0 or signal[step - 1] == 0.0  # log-SNR −∞: the step before has no finite length
    if previous is None or first or noise[step + 1] == 0.0:
        return latents
    before, now, after = (math.log(signal[i] / noise[i]) for i in (step - 1, step, step + 1))
    return latents + 0.5 * weight * (after - now) / (now - before) * (clean - previous)


def _step_noise(latents: Tensor, step: Coefficients, generator: torch.Generator, share: Share) -> Tensor:
    return noise_like(latents, 1, generator, share)[:, 0] if step.std > 0 else torch.zeros_like(latents)


@dataclass(frozen=True)
class Tree:
    """A tree of stochastic trajectories over N roots; M_i is the number of nodes of a root at step i.

    Attributes:
        parents: T tensors (N · M_i, C, H, W), the nodes before each step.
        noises: T tensors (N · M_i, K_i, C, H, W), the noise of each node's children.
        leaves: (N · M_T, C, H, W) finished latents; the M_T leaves of a root lie side by side.
    """

    parents: tuple[Tensor, ...]
    noises: tuple[Tensor, ...]
    leaves: Tensor


def branch_tree(
    network: NetworkOutput,
    schedule: Schedule,
    roots: Tensor,
    branches: Sequence[int],
    kernel: Kernel,
    noise_level: float,
    generator: torch.Generator,
    share: Share = WHOLE,
) -> Tree:
    """Run stochastic trajectories that split into K_i children at step i.

    Source: BranchGRPO, arXiv 2509.06040.

    Args:
        network: (latents (B, C, H, W), step, root index (B,)) → output (B, C, H, W).
        schedule: The noise levels, T steps.
        roots: (N, C, H, W) initial noise.
        branches: Up to T counts K_i; 0 and missing steps go on with one child.
        kernel: The stochastic kernel of every step.
        noise_level: The kernel's noise level.
        generator: Source of the noise.
        share: Which part of the batch the roots are.
    """
    latents, index = roots, torch.arange(len(roots), device=roots.device)
    counts = [max(1, count) for count in branches] + [1] * (schedule.steps - len(branches))
    parents, noises = [], []
    for step, count in enumerate(counts):
        coefficients = kernel(schedule, step, noise_level)
        noise = noise_like(latents, count, generator, share)
        center = mean(coefficients, latents, network(latents, step, index)).unsqueeze(1)
        parents.append(latents)
        noises.append(noise)
        latents = (center + coefficients.std * noise).flatten(0, 1)
        index = index.repeat_interleave(count)
    return Tree(tuple(parents), tuple(noises), latents)


def branch_per_step(
    network: NetworkOutput,
    schedule: Schedule,
    roots: Tensor,
    branches: Sequence[int],
    kernel: Kernel,
    noise_level: float,
    generator: torch.Generator,
    share: Share = WHOLE,
    whole_path: bool = False,
) -> Branching:
    """Let K_i branches leave every root at step i and finish them deterministically.

    Source: TempFlow-GRPO, arXiv 2508.04324, section 4.1.

    Args:
        network: (latents (B, C, H, W), step, root index (B,)) → output (B, C, H, W).
        schedule: The noise levels, T steps.
        roots: (N, C, H, W) initial noise.
        branches: Up to T branch counts K_i, 0 for none.
        kernel: The stochastic kernel of a branching step.
        noise_level: The kernel's noise level.
        generator: Source of the branches' noise.
        share: Which part of the batch the roots are.
        whole_path: Whether the roots are followed to the state before the last step, for rows that are held
            there; else they are dropped after the last branching step.

    Returns:
        Parents, noises, leaves and the un-branched path.
    """
    counts = {step: count for step, count in enumerate(branches) if count > 0}
    last = max(counts)
    dropped = max(last, schedule.steps - 2) if whole_path else last
    front = _Front(roots, counts)
    parents, noises, path = {}, {}, {}
    for step in range(schedule.steps):
        output = network(front.latents, step, front.root_index)
        if step in counts:
            parents[step] = front.root_states()
            noises[step] = noise_like(parents[step], counts[step], generator, share)
            stochastic = kernel(schedule, step, noise_level)
            center = mean(stochastic, parents[step], output[: len(roots)]).unsqueeze(1)
            children = center + stochastic.std * noises[step]
        else:
            if step <= dropped:
                path[step] = front.root_states()
            children = None
        front.advance(mean(ode(schedule, step), front.latents, output), children, step == dropped)
    return Branching(parents, noises, front.leaves(), path)


class _Front:
    """All states at the present step: the roots first (until dropped), then the branches step by step."""

    def __init__(self, roots: Tensor, counts: dict[int, int]):
        self.latents = roots
        self._roots = len(roots)
        self._counts = counts
        self._born: list[int] = []
        self._index = torch.arange(len(roots), device=roots.device)
        self.root_index = self._index

    def root_states(self) -> Tensor:
        return self.latents[: self._roots]

    def advance(self, moved: Tensor, children: Tensor | None, drop_roots: bool) -> None:
        parts, index = [moved], [self.root_index]
        if children is not None:
            step = [s for s in sorted(self._counts) if s not in self._born][0]
            self._born.append(step)
            parts.append(children.flatten(0, 1))
            index.append(self._index.repeat_interleave(children.shape[1]))
        start = self._roots if drop_roots else 0
        self.latents = torch.cat(parts)[start:]
        self.root_index = torch.cat(index)[start:]

    def leaves(self) -> dict[int, Tensor]:
        sizes = [self._roots * self._counts[step] for step in self._born]
        groups = self.latents.split(sizes)
        return {
            step: group.unflatten(0, (self._roots, self._counts[step]))
            for step, group in zip(self._born, groups, strict=True)
        }
