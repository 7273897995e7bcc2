"""The rollout policy of DiffusionNFT: a moving average that trails behind the trained one."""

import pytest
import torch

from tests.trainer_cases import equal, follow, toy

pytestmark = pytest.mark.usefixtures("one_thread")


def lora(trainer):
    return [parameter.detach().clone() for parameter in trainer.policy.parameters()]


def trailing(trainer):
    return list(trainer.policy.trailing_state().values())


def test_the_average_keeps_a_share_that_grows_with_the_rollouts():
    trainer = toy("flow", "diffusion_nft", old_decay_rate=0.2, old_decay_max=0.5)
    expected = lora(trainer)
    for rollout in range(1, 5):
        trainer.advance()
        keep = min(0.2 * rollout, 0.5)
        expected = [keep * old + (1 - keep) * new for old, new in zip(expected, lora(trainer), strict=True)]
        for got, wanted in zip(trailing(trainer), expected, strict=True):
            torch.testing.assert_close(got, wanted)


def test_rollouts_and_old_outputs_come_from_the_average():
    trainer = toy("flow", "diffusion_nft", old_decay_rate=0.9, old_decay_max=0.9, learning_rate=0.05)
    follow(trainer, 3)
    policy = trainer.policy
    latents = torch.randn((2, *policy.model.latent_shape), generator=torch.Generator().manual_seed(0))
    rows = trainer.conditions.select(torch.tensor([0, 1]))
    sampled = policy.sample_output(latents, trainer.schedule, 1, rows)
    old = policy.old_output(latents, trainer.schedule, 1, rows)
    new = policy.output(latents, trainer.schedule, 1, rows).detach()
    torch.testing.assert_close(sampled, old, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(old, new, rtol=1e-3, atol=1e-4)


def test_reading_the_old_policy_leaves_the_trained_one_alone():
    trainer = toy("flow", "diffusion_nft", old_decay_rate=0.9, old_decay_max=0.9)
    follow(trainer, 2)
    before = trainer.policy.state()
    rows = trainer.conditions.select(torch.tensor([0]))
    trainer.policy.old_output(torch.zeros(1, *trainer.policy.model.latent_shape), trainer.schedule, 0, rows)
    assert equal(before, trainer.policy.state())


def test_a_checkpoint_carries_the_average():
    trainer = toy("flow", "diffusion_nft", old_decay_rate=0.4, old_decay_max=0.5)
    follow(trainer, 2)
    saved = trainer.checkpoint(0.0)
    assert len(saved.trailing) == len(lora(trainer))
    other = toy("flow", "diffusion_nft", old_decay_rate=0.4, old_decay_max=0.5)
    other.restore(saved)
    assert all(torch.equal(a, b) for a, b in zip(trailing(other), trailing(trainer), strict=True))


def test_without_a_trailing_policy_the_old_one_is_the_trained_one():
    trainer = toy("flow", "grpo")
    assert not trainer.policy.trails
    assert trainer.checkpoint(0.0).trailing == {}


def test_a_stored_average_goes_to_the_device_of_the_policy():
    trainer = toy("flow", "diffusion_nft", old_decay_rate=0.4, old_decay_max=0.5)
    follow(trainer, 1)
    saved = trainer.checkpoint()
    trainer.policy.model.device = torch.device("meta")
    trainer.policy.load_trailing(saved.trailing)
    assert {tensor.device.type for tensor in trailing(trainer)} == {"meta"}
