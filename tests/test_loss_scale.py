"""float16's narrow range costs no gradient: what is too small or too large for it is scaled on its way."""

import pytest
import torch
from torch import nn

from tests.estimators.toy_model import WORDS, Smooth, ToyModel
from tests.trainer_cases import toy
from trainers.estimators.scoring import reward_gradient
from trainers.loop import Trainer
from trainers.loss_scale import LossScale, power_of_two

pytestmark = pytest.mark.usefixtures("one_thread")


class Network(nn.Module):
    """A float32 parameter whose gradient passes through layers of another precision."""

    def __init__(self, dtype, gain=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1.0, 1.0, 8))
        self.dtype, self.gain = dtype, gain

    def forward(self, values):
        return (values.to(self.dtype) * self.weight.to(self.dtype) * self.gain).float()


def gradient(dtype, size, gain=1.0, lowered=0):
    network = Network(dtype, gain)
    scale = LossScale([network.weight], dtype)
    scale.begin()
    assert all(scale.lower() for _ in range(lowered))
    for part in (0.5, 2.0):  # two passes with powers of their own add up
        output = network(torch.full((8,), part))
        scale.backward(size * output.square().sum(), output)
    return network.weight.grad


@pytest.mark.parametrize("size", [1e-12, 1e-8, 1.0, 1e6])
def test_gradients_of_any_size_arrive(size):
    exact = gradient(torch.float32, size)
    torch.testing.assert_close(gradient(torch.float16, size), exact, rtol=5e-3, atol=0.0)


def test_without_a_scale_they_would_not():
    network = Network(torch.float16)
    (1e-12 * network(torch.ones(8)).square().sum()).backward()
    assert not network.weight.grad.any()


def test_gradients_that_grow_on_their_way_arrive_with_a_smaller_scale():
    """Multiplied by 30000 twice: the second product would be beyond float16."""
    exact = gradient(torch.float32, 1e-9, 30000.0)
    assert not gradient(torch.float16, 1e-9, 30000.0).isfinite().all()
    torch.testing.assert_close(gradient(torch.float16, 1e-9, 30000.0, 1), exact, rtol=5e-3, atol=0.0)


def test_there_is_an_end_of_smaller_scales():
    scale = LossScale([], torch.float16)
    assert [scale.lower() for _ in range(3)] == [True, True, False]
    scale.begin()
    assert scale.lower() and not LossScale([], torch.bfloat16).lower()


def test_powers_of_two_bring_values_near_the_wanted_size():
    values = torch.tensor([0.0, 1e-20, 3e-6, 1.0, 5e7])
    scaled = values * power_of_two(values, 3)
    assert scaled[0] == 0.0 and (scaled[1:] >= 4.0).all() and (scaled[1:] <= 8.0).all()
    assert torch.equal(torch.frexp(power_of_two(values)).mantissa, torch.full((5,), 0.5))


class Faint:
    """An objective whose losses are very small."""

    held_to = ""

    def needs_reference(self, anchor_only):
        return False

    def __init__(self, inner, factor):
        self.inner, self.factor, self.method = inner, factor, inner.method

    def __call__(self, *arguments):
        result = self.inner(*arguments)
        object.__setattr__(result, "loss", result.loss * self.factor)
        return result


@pytest.mark.parametrize("factor", [1.0, 1e-9])
def test_an_update_in_float16_has_the_gradients_of_float32(factor):
    norms = []
    for dtype in (torch.float32, torch.float16):
        # With seed 3 a reward of the rounded pictures lies at its group's mean, so its row leaves the loss.
        config = toy("flow", "grpo", micro_batch=4, updates_per_rollout=1, seed=1).config
        trainer = Trainer(config, ToyModel("flow"), Smooth(), WORDS, dtype)
        trainer.objective = Faint(trainer.objective, factor)
        norms.append(trainer.advance()[-1].grad_norm / factor)
    assert norms[1] == pytest.approx(norms[0], rel=0.05) and norms[0] > 0


def test_an_update_that_overflows_is_made_again_and_counts_once():
    config = toy("flow", "grpo", updates_per_rollout=1).config
    trainer = Trainer(config, ToyModel("flow"), Smooth(), WORDS, torch.float16)
    backward, spoilt = trainer._loss_scale.backward, []

    def once_too_large(loss, output):
        backward(loss, output)
        if not spoilt:
            spoilt.append(True)
            trainer.policy.parameters()[0].grad.fill_(float("inf"))

    trainer._loss_scale.backward = once_too_large
    before = trainer.policy.state()
    (record,) = trainer.advance()
    assert spoilt and record.step == 1 and 0 < record.grad_norm < float("inf")
    assert any(not torch.equal(value, before[name]) for name, value in trainer.policy.state().items())


def test_a_reward_gradient_passes_through_float16():
    class Task:
        prompts = ("dot",)
        reward = staticmethod(lambda images, prompts: 1e-9 * images.square().sum((1, 2, 3)))

        class policy:  # noqa: N801
            class model:  # noqa: N801
                decode = staticmethod(lambda latents: latents)

    found = []
    for dtype in (torch.float32, torch.float16):
        leaf = torch.linspace(0.1, 1.0, 16).view(1, 1, 4, 4).requires_grad_(True)
        clean = (leaf.to(dtype) * 0.5).float()
        found.append(reward_gradient(Task, clean, leaf, torch.zeros(1, dtype=torch.long))[1])
    torch.testing.assert_close(found[1], found[0], rtol=5e-3, atol=0.0)
