"""What the trainer did in some rollouts on the toy model in float64, down to the gradient it gave its
optimizer.

Recorded are raw materials only: the states, noises and finished latents that the samplers returned, the
random splits into updates, the weights before every optimizer step, and the gradients. Everything that makes
an update of them (rewards, groups, statistics, weights, losses) is derived again by the tests of this folder,
from formulas.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from unittest import mock

import torch
from torch.func import functional_call

from tests.core.toys import randn
from tests.estimators.toy_model import WORDS, Smooth, ToyModel
from tests.threaded_ranks import side_by_side, threads_of
from trainers import updates as splitting
from trainers.config import RunConfig
from trainers.estimators import first_order, forward_process, zeroth_order
from trainers.loop import Trainer
from trainers.methods import METHODS
from trainers.ranks import ALONE

GUIDANCE = 3.0
SAMPLERS = {
    zeroth_order: ("trajectory", "branch_tree", "branch_per_step"),
    first_order: ("trajectory",),
    forward_process: ("finished",),
}


class ToyWithGuidance(ToyModel):
    """The toy with an empty prompt that is no row of zeros, so that guidance has something to do."""

    def encode(self, prompts):
        rows = super().encode(prompts)
        return type(rows)(rows.embeds, None, 0.7 * randn(1, 3, 4, seed=99).to(rows.embeds), None)

    def use_decoder_precision(self, dtype):
        """Stay in float64, where first-order rows would decode in float32."""


@dataclass
class Update:
    """One optimizer step.

    Attributes:
        weights: The LoRA's tensors by name before the step.
        gradient: What the optimizer was given, as one vector in the order of ``weights``.
        metrics: The line of the metrics.
    """

    weights: dict[str, torch.Tensor]
    gradient: torch.Tensor
    metrics: object = None


@dataclass
class RecordedRollout:
    """One rollout and its updates.

    Attributes:
        begun: The initial noise that the samplers were given, in order.
        sampled: What they returned.
        turns: Random splits, in order: the update of each thing that was split (branches, samples, anchors).
        chosen: (P,) numbers of its prompts.
        rows: Which step and which samples rows were made of, as the estimator handed them over.
        updates: Its optimizer steps.
    """

    chosen: torch.Tensor
    begun: list[torch.Tensor] = field(default_factory=list)
    sampled: list = field(default_factory=list)
    turns: list[torch.Tensor] = field(default_factory=list)
    rows: tuple = ()
    updates: list[Update] = field(default_factory=list)


def config_of(method, family, **settings):
    """The row's own defaults with the sizes of a toy; nothing is clipped after the fact."""
    base = {
        "estimator": method,
        "rollout_steps": 5,
        "noise_level": 1.0 if family == "diffusion" else 0.7,
        "branches": (3, 2),
        "prompts_per_update": 4,
        "group_size": 4,
        "roots_per_prompt": 2,
        "lora_rank": 2,
        "lora_alpha": 4.0,
        "guidance_scale": GUIDANCE,
        "max_grad_norm": 1e12,
        "learning_rate": 1e-2,
        "kl_weight": 0.3,
        "seed": 3,
    }
    return RunConfig(**(base | dict(METHODS.get(method).defaults) | settings))


class Recording:
    """Some rollouts of one method, recorded."""

    def __init__(
        self, method, family, rollouts=1, micro_batch=128, processes=1, reward=None, toy=None, **settings
    ):
        self.method, self.family = method, family
        self.config = config_of(method, family, micro_batch=micro_batch, **settings)
        self.reward = reward or Smooth()
        self.toy = toy or ToyWithGuidance
        crew = threads_of(processes) if processes > 1 else [ALONE]
        self.trainers = [self._trainer(ranks) for ranks in crew]
        self.trainer = self.trainers[0]
        self.schedule = self.trainer.schedule
        self.rollouts: list[RecordedRollout] = []
        with self._watching():
            for _ in range(rollouts):
                self._advance()
        self.after = self._weights()

    def _trainer(self, ranks):
        model = self.toy(self.family, torch.float64)
        trainer = Trainer(self.config, model, self.reward, WORDS, torch.float64, ranks=ranks)
        step = trainer.optimiser.step
        if ranks.rank == 0:
            trainer.optimiser.step = lambda: (self._keep(), step())
        return trainer

    def _advance(self):
        self.rollouts.append(RecordedRollout(torch.zeros(0)))
        if len(self.trainers) == 1:
            records = self.trainer.advance()
        else:
            calls = [self.trainer.advance, *(lambda t=t: _obey(t) for t in self.trainers[1:])]
            found = side_by_side(calls)
            for result in found:
                assert not isinstance(result, BaseException), result
            records = found[0]
        for update, record in zip(self.rollouts[-1].updates, records, strict=True):
            update.metrics = record

    def _keep(self):
        gradient = torch.cat([p.grad.flatten() for p in self.trainer.policy.parameters()]).clone()
        self.rollouts[-1].updates.append(Update(self._weights(), gradient))

    def _weights(self):
        named = self.trainer.policy.network.named_parameters()
        return {name: p.detach().clone() for name, p in named if p.requires_grad}

    @contextlib.contextmanager
    def _watching(self):
        """Keep what samplers and splits return in the first process."""
        first = self.trainer.estimator
        with contextlib.ExitStack() as stack:
            for module, names in SAMPLERS.items():
                for name in names:
                    stack.enter_context(mock.patch.object(module, name, self._kept(getattr(module, name))))
            split = splitting._permuted_turns
            stack.enter_context(mock.patch.object(splitting, "_permuted_turns", self._split(split)))
            collect = first.collect

            def collected(task):
                self.rollouts[-1].chosen = task.chosen.clone()
                rollout = collect(task)
                self.rollouts[-1].rows = rollout.rows
                return rollout

            first.collect = collected
            yield

    def _kept(self, function):
        def call(network, schedule, latents, *args, **kwargs):
            result = function(network, schedule, latents, *args, **kwargs)
            if len(self.trainers) == 1:
                self.rollouts[-1].begun.append(latents)
                self.rollouts[-1].sampled.append(result)
            return result

        return call

    def _split(self, function):
        def call(*args):
            turns = function(*args)
            if len(self.trainers) == 1:
                self.rollouts[-1].turns.append(turns)
            return turns

        return call

    # -- the toy's networks, for derivations ------------------------------------------------------------

    def _rows(self, prompts):
        rows = self.trainer.policy.model.encode([WORDS[i] for i in prompts.tolist()])
        return rows, rows.negative_embeds.expand(len(prompts), -1, -1)

    def output(self, weights, latents, step, prompts, constant_empty=False):
        """o (B, C, H, W) with classifier-free guidance, for the LoRA ``weights`` (None: the base model)."""
        model = self.trainer.policy.model
        network = model.network if weights is None else _With(self.trainer.policy.network, weights)
        time = float(self.schedule.timesteps[step])
        rows, negative = self._rows(prompts)
        prompted = model.predict(network, latents.double(), time, rows)
        empty = model.predict(network, latents.double(), time, type(rows)(negative, None, negative, None))
        empty = empty.detach() if constant_empty else empty
        return empty + GUIDANCE * (prompted - empty)

    def rewards(self, latents, prompts):
        """r (B,) of finished latents, with gradient to them."""
        images = self.trainer.policy.model.decoder(latents.double())
        return self.reward(images, [WORDS[i] for i in prompts.tolist()])

    def gradient(self, loss_of, weights):
        """The gradient of loss_of(leaves) at ``weights`` as one vector in their order."""
        leaves = {name: tensor.clone().requires_grad_(True) for name, tensor in weights.items()}
        parts = torch.autograd.grad(loss_of(leaves), list(leaves.values()), allow_unused=True)
        zeros = zip(leaves.values(), parts, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zeros])


class _With:
    """A network whose LoRA is given."""

    dtype = torch.float64

    def __init__(self, network, weights):
        self._network, self._weights = network, weights

    def __call__(self, *inputs):
        return functional_call(self._network, self._weights, inputs)


def _obey(trainer):
    name, _ = trainer.ranks.exchange()[0]
    assert name == "advance"
    return trainer.advance()


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())
