"""Whole updates of the zeroth-order methods, derived again: what is trained and what it weighs.

Read are a recording's raw materials (states, noises, finished latents, splits, weights), and from the rows of
a rollout only which of the states on deterministic paths were drawn to hold the policy near the base model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from tests.updates import published_zeroth as formulas
from tests.updates.published_zeroth import KINDS, Constants, Moved, Tracker, mean_of, standardised


@dataclass
class Branches:
    """K branches from each of B states of one step, with the update that each belongs to.

    They went to ``after``; where that is not known it follows from their ``noises``. ``scale`` is K̄/K.
    """

    step: int
    states: torch.Tensor
    prompts: torch.Tensor
    advantages: torch.Tensor
    turns: torch.Tensor
    after: torch.Tensor | None = None
    noises: torch.Tensor | None = None
    scale: float = 1.0


class Derivation:
    """The updates of a recording's rollouts, in order, as one method's paper has them."""

    def __init__(self, recording, published, **changed):
        self.recording = recording
        self.published = replace(published, **changed)
        self.config, self.constants = recording.config, Constants(recording)
        self.tracker = Tracker(self.config.history_size)
        self.parts = [published.sampling(self, rollout) for rollout in recording.rollouts]

    def gradients(self):
        """The gradient of every update of every rollout."""
        pairs = zip(self.recording.rollouts, self.parts, strict=True)
        return [self.gradient(*pair, n) for pair in pairs for n in range(len(pair[0].updates))]

    def gradient(self, rollout, parts, number):
        counted = [part.turns == number for part in parts]
        if self.published.drops:
            told = [part.advantages != 0 for part in parts]
            if self.published.drops == "path" and self.equal_branches():
                told = [torch.stack(told).any(0)] * len(parts)
            speaking = [mine & some for mine, some in zip(counted, told, strict=True)]
            counted = speaking if any(bool(mine.any()) for mine in speaking) else counted
        total = sum(int(mine.sum()) for mine in counted)

        def loss(leaves):
            pull = sum(
                (self.losses(leaves, rollout, part) * part.scale * mine).sum()
                for mine, part in zip(counted, parts, strict=True)
            )
            return pull / total + self.config.kl_weight * self.anchored(leaves, rollout, number)

        return self.recording.gradient(loss, rollout.updates[number].weights)

    def equal_branches(self):
        """Whether as many branches leave every branching step, so that they form paths of equal number."""
        return len({count for count in self.config.branches if count}) == 1

    def losses(self, leaves, rollout, part):
        """(B, K) policy loss plus β times the KL term of the state."""
        kernel, where = self.constants.kernels[part.step], (part.states, part.step, part.prompts)
        output = self.recording.output(leaves, *where)
        old = self.recording.output(rollout.updates[0].weights, *where).detach()
        centers, before = (kernel.mean(part.states, o).unsqueeze(1) for o in (output, old))
        after = before + kernel.std * part.noises if part.after is None else part.after
        change, clip = (output - old).unsqueeze(1), self.config.clip_range
        moved = Moved(kernel, self.constants, centers, before, change, after, part.advantages, clip)
        held = self.held(output, where, self.published.held)
        return self.published.loss(moved) + self.config.kl_weight * held

    def held(self, output, where, how):
        """(B, 1) ‖Δμ‖² to the base model over 2σ² (transition) or 2τ² (rate), or ‖Δo‖² (output)."""
        if how == "none":
            return torch.zeros(len(output), 1)
        apart = mean_of((output - self.recording.output(None, *where).detach()).unsqueeze(1) ** 2)
        kernel = self.constants.kernels[where[1]]
        if how == "output":
            return apart
        return kernel.slope**2 * apart / (2 * (kernel.std if how == "transition" else kernel.rate) ** 2)

    def anchored(self, leaves, rollout, number):
        """The mean KL term over the update's states on deterministic paths, times K̄ for flows."""
        if self.published.anchors == "none" or not self.config.kl_weight:
            return 0.0
        drawn = zip(anchors_of(self, rollout), rollout.turns[1].tolist(), strict=True)
        mine, found = [anchor for anchor, turn in drawn if turn == number], []
        for step, state, prompt in mine:
            where = (state.unsqueeze(0), step, torch.tensor([prompt]))
            found.append(self.held(self.recording.output(leaves, *where), where, self.published.anchors))
        counts = [count for count in self.config.branches if count]
        scale = sum(counts) / len(counts) if self.recording.family == "flow" else 1.0
        return scale * sum(found).sum() / len(found) if found else 0.0

    def compare(self, groups, std=None):
        """Advantages of groups (G, M) of rewards."""
        kind = KINDS.get(self.config.advantage)
        found = standardised(groups, self.published.epsilon, std, self.published.unbiased)
        found = kind(groups, self.config.tilt) if kind else found
        return found.clamp(-self.config.advantage_clamp, self.config.advantage_clamp)

    def spread(self, rewards):
        return rewards.std(correction=0) if self.published.spread == "rollout" else None

    def trained_steps(self):
        kernels = self.constants.kernels
        return len(kernels) - (0 if self.published.last and kernels[-1].std > 0 else 1)


def trajectories(derivation, rollout):
    """Every step of whole trajectories has the advantage of the finished picture."""
    (sampled,), size = rollout.sampled, derivation.config.group_size
    prompts = rollout.chosen.repeat_interleave(size)
    rewards = derivation.recording.rewards(sampled.final, prompts)
    if derivation.published.history:
        limit = derivation.config.advantage_clamp
        advantages = derivation.tracker.advantages(prompts, rewards).clamp(-limit, limit)
    else:
        advantages = by_prompt(derivation, rewards, prompts)
    turns = dealt(derivation, rollout, advantages != 0)
    given = advantages.reshape(-1, 1), turns.view(-1, 1)
    states = [*sampled.states, sampled.final]
    return [
        Branches(step, states[step], prompts, *given, after=states[step + 1].unsqueeze(1))
        for step in range(derivation.trained_steps())
    ]


def dealt(derivation, rollout, speaks):
    """The update of each sample or path; −1 for those without an advantage where these leave.

    Flow-GRPO's program shuffles the others only, so that the recorded split is one of these; with fewer of
    them than updates it is one of all. A derivation that keeps the silent ones deals them out in turn.
    """
    recorded = rollout.turns[0]
    if len(recorded) == len(speaks):
        return recorded
    turns = torch.arange(len(speaks)) % len(rollout.updates)
    turns[speaks] = recorded
    return torch.where(speaks, turns, -1) if derivation.published.drops else turns


def by_prompt(derivation, rewards, prompts):
    """Samples of one prompt are a group, also when the rollout drew it more than once."""
    std, advantages = derivation.spread(rewards), torch.zeros_like(rewards)
    for prompt in prompts.unique():
        mine = prompts == prompt
        advantages[mine] = derivation.compare(rewards[mine].unsqueeze(0), std)[0]
    return advantages


def tree(derivation, rollout):
    """An edge has the advantage of its child: the mean of its leaves among the tree's nodes of that depth."""
    (sampled,), config = rollout.sampled, derivation.config
    roots = len(rollout.chosen) * config.roots_per_prompt
    owners = rollout.chosen.repeat_interleave(config.roots_per_prompt)
    worth = derivation.recording.rewards(
        sampled.leaves, owners.repeat_interleave(len(sampled.leaves) // roots)
    )
    states, parts, begin = [*sampled.parents, sampled.leaves], [], 0
    for step in range(derivation.trained_steps()):
        after = states[step + 1].unflatten(0, (len(states[step]), -1))
        shape, prompts = after.shape[:2], owners.repeat_interleave(len(states[step]) // roots)
        depth = worth.view(roots, shape.numel() // roots, -1).mean(2)
        single = torch.zeros_like(depth)
        advantages = (derivation.compare(depth) if depth.shape[1] > 1 else single).reshape(shape)
        turns = rollout.turns[0][begin : begin + shape.numel()].view(shape)
        parts.append(Branches(step, states[step], prompts, advantages, turns, after=after))
        begin += shape.numel()
    return parts


def one_step(derivation, rollout):
    """Branches of one state are compared with each other; a step's branches weigh K̄/K."""
    (sampled,), config = rollout.sampled, derivation.config
    prompts = rollout.chosen.repeat_interleave(config.roots_per_prompt)
    counts = {step: count for step, count in enumerate(config.branches) if count}
    rewards = {
        step: derivation.recording.rewards(
            sampled.leaves[step].flatten(0, 1), prompts.repeat_interleave(count)
        )
        for step, count in counts.items()
    }
    std, parts, begin = derivation.spread(torch.cat(list(rewards.values()))), [], 0
    found = {step: derivation.compare(rewards[step].view(-1, count), std) for step, count in counts.items()}
    by_path = derivation.published.drops == "path" and derivation.equal_branches()
    split = rollout.turns[0]
    if by_path:
        speaks = torch.stack([advantages != 0 for advantages in found.values()]).any(0)
        split = dealt(derivation, rollout, speaks.flatten())
    for step, count in counts.items():
        advantages = found[step]
        begin = 0 if by_path else begin
        turns = split[begin : begin + advantages.numel()].view(-1, count)
        scale = sum(counts.values()) / len(counts) / count
        given = sampled.parents[step], prompts, advantages, turns
        parts.append(Branches(step, *given, noises=sampled.noises[step], scale=scale))
        begin += advantages.numel()
    return parts


def anchors_of(derivation, rollout):
    """(step, state, prompt) of the drawn states on deterministic paths, step by step and root by root."""
    (sampled,), config = rollout.sampled, derivation.config
    prompts = rollout.chosen.repeat_interleave(config.roots_per_prompt)
    last = derivation.recording.schedule.steps - 1
    every = [
        (step, state, prompt)
        for step, states in sorted(sampled.path.items())
        for state, prompt in zip(states, prompts.tolist(), strict=True)
        if step != last
    ]
    rows = [row for row in rollout.rows if row.advantages is None]
    drawn = {step: [state for row in rows if row.step == step for state in row.latents] for step, *_ in every}
    found = [a for a in every if any(torch.equal(a[1], state) for state in drawn[a[0]])]
    asked = max(1, int(config.anchor_fraction * len(prompts) * sum(config.branches) + 1e-9))
    asked = asked if config.anchor_fraction else 0
    assert len(found) == sum(len(row.latents) for row in rows) == min(asked, len(every))
    return found


@dataclass(frozen=True)
class Published:
    """A method as its paper and program have it.

    Attributes:
        loss: The clipped loss of a branch.
        sampling: Where the branches come from.
        held: What β multiplies on trained states: ``transition``, ``rate``, ``output`` or ``none``.
        epsilon: Added to a standard deviation.
        unbiased: Whether that divides by one less than the group's size.
        spread: Whose standard deviation: the ``group``'s or the ``rollout``'s.
        drops: Whether branches without an advantage leave numerator and denominator; ``path`` when the k-th
            branches of a root have none at any step.
        last: Whether the last step is trained where it injects noise.
        history: Whether a prompt is compared with its own past.
        anchors: What β multiplies on states of deterministic paths.
    """

    loss: Callable
    sampling: Callable
    held: str = "transition"
    epsilon: float = 1e-4
    unbiased: bool = False
    spread: str = "group"
    drops: bool | str = False
    last: bool = False
    history: bool = False
    anchors: str = "none"


def published(method, family):
    """The row of a method; 2τ² is Flow-GRPO's denominator and only flows have it."""
    rate = "rate" if family == "flow" else "transition"
    return {
        "rsm_zeroth_order_flow": Published(
            formulas.fair_clip, one_step, rate, drops=True, anchors="transition"
        ),
        "rsm_zeroth_order_diffusion": Published(
            formulas.constant_weight, one_step, "none", drops=True, anchors="output"
        ),
        "grpo": Published(formulas.grpo, trajectories, rate, spread="rollout", drops=True),
        "tempflow_grpo": Published(formulas.tempflow, one_step, drops="path"),
        "branch_grpo": Published(formulas.grpo, tree, epsilon=1e-8, unbiased=True, last=True),
        "grpo_guard": Published(formulas.guard, trajectories, drops=True),
        "pcpo": Published(formulas.constant_weight, trajectories, epsilon=1e-8),
        "pcpo_flow": Published(formulas.interval_weight, trajectories, rate, spread="rollout", drops=True),
        "ppo": Published(formulas.grpo, trajectories, epsilon=1e-6, last=True, history=True),
        "reinforce_kl": Published(formulas.policy_gradient, trajectories),
    }[method]
