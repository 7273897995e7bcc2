"""Moving averages of the weights: one makes the rollouts (DiffusionNFT), one holds (AWM), one is shipped."""

import pytest
import torch

from tests.trainer_cases import equal, follow, timeless, toy
from trainers.checkpoint import load_latest, save_checkpoint
from trainers.policy import PULL, ROLLOUT, SHIPPED, Policy
from trainers.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")


def lora(trainer):
    return [parameter.detach().clone() for parameter in trainer.policy.parameters()]


def trailing(trainer):
    return list(trainer.policy.trailing_state().values())


@pytest.mark.parametrize("method", ["diffusion_nft", "ram", "awm"])
@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("start", [0, 3])
def test_the_average_keeps_a_share_that_grows_with_the_optimiser_steps(method, updates, start):
    """min(rate·max(0, updates − start), most) after each rollout."""
    trainer = toy(
        "flow",
        method,
        old_decay_rate=0.1,
        old_decay_max=0.5,
        old_decay_start=start,
        updates_per_rollout=updates,
        kl_weight=0.3,
    )
    expected = lora(trainer)
    for rollout in range(1, 5):
        trainer.advance()
        keep = min(0.1 * max(0, updates * rollout - start), 0.5)
        expected = [keep * old + (1 - keep) * new for old, new in zip(expected, lora(trainer), strict=True)]
        for got, wanted in zip(trailing(trainer), expected, strict=True):
            torch.testing.assert_close(got, wanted)


def test_averages_are_kept_by_what_they_are_for():
    """Names are those of checkpoints; a row without an average, or one that keeps nothing of it, has none."""
    kept = {
        ("diffusion_nft", 0.0): {ROLLOUT},
        ("ram", 0.0): {ROLLOUT},
        ("awm", 0.0): {PULL},
        ("awm", 0.9): {PULL, SHIPPED},
        ("grpo", 0.9): {SHIPPED},
        ("grpo", 0.0): set(),
    }
    for (method, decay), purposes in kept.items():
        trainer = toy("flow", method, ema_decay=decay)
        names = list(trainer.policy.trailing_state())
        count = len(lora(trainer))
        assert names == [
            f"{purpose}/{i}"
            for purpose in (ROLLOUT, PULL, SHIPPED)
            if purpose in purposes
            for i in range(count)
        ]
        assert trainer.policy.trails == (ROLLOUT in purposes)
    assert toy("flow", "awm", old_decay_max=0.0).policy.trailing_state() == {}


def test_the_average_that_holds_neither_makes_rollouts_nor_is_the_old_policy():
    trainer = toy("flow", "awm", old_decay_rate=0.9, old_decay_max=0.9, learning_rate=0.05)
    follow(trainer, 3)
    policy = trainer.policy
    latents = torch.randn((2, *policy.model.latent_shape), generator=torch.Generator().manual_seed(0))
    where = latents, trainer.schedule, 1, trainer.conditions.select(torch.tensor([0, 1]))
    new = policy.output(*where).detach()
    torch.testing.assert_close(policy.sample_output(*where), new, rtol=1e-4, atol=1e-5)
    assert torch.equal(policy.old_output(*where), new)
    held = policy.old_output(*where, PULL)
    assert not torch.allclose(held, new, rtol=1e-3, atol=1e-4)
    record = trainer.advance()[0]
    assert record.pull > 0


def test_at_first_there_is_nothing_to_pull_back_from():
    assert toy("flow", "awm").advance()[0].pull == 0.0
    first, second = toy("diffusion", "residual_nabla_db", updates_per_rollout=2).advance()
    assert first.pull == 0.0
    assert second.pull > 0.0


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


# -- the average that is evaluated and saved -----------------------------------------------------------


def average_by_hand(trainer, rollouts, decay, every):
    """Follow a run; return the average that Flow-GRPO's program keeps: min((1 + u)/(10 + u), decay)."""
    expected, states = lora(trainer), []
    step = trainer.optimiser.step
    trainer.optimiser.step = lambda: (step(), states.append(lora(trainer)))
    follow(trainer, rollouts)
    for done, state in enumerate(states, 1):
        if (done + 1) % every == 0:
            keep = min((1 + done) / (10 + done), decay)
            expected = [keep * old + (1 - keep) * new for old, new in zip(expected, state, strict=True)]
    return expected


@pytest.mark.parametrize(("decay", "every"), [(0.9, 1), (0.3, 1), (0.9, 3), (0.99, 8)])
@pytest.mark.parametrize("updates", [1, 2])
def test_the_shipped_average_follows_the_published_schedule(decay, every, updates):
    trainer = toy("flow", "grpo", ema_decay=decay, ema_every=every, updates_per_rollout=updates)
    expected = average_by_hand(trainer, 6, decay, every)
    for got, wanted in zip(trailing(trainer), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_shipped_average_changes_nothing_that_is_learned():
    with_average, without = (
        toy("flow", "rsm_zeroth_order_flow", ema_decay=d, ema_every=1) for d in (0.9, 0.0)
    )
    assert timeless(follow(with_average, 3)) == timeless(follow(without, 3))
    assert equal(with_average.policy.state(), without.policy.state())


@pytest.mark.parametrize("method", ["rsm_zeroth_order_flow", "diffusion_nft"])
def test_what_is_evaluated_and_saved_is_the_average(method):
    trainer = toy("flow", method, ema_decay=0.9, ema_every=2, learning_rate=0.05, updates_per_rollout=2)
    follow(trainer, 3)
    policy = trainer.policy
    average = [tensor for name, tensor in policy.trailing_state().items() if name.startswith(SHIPPED)]
    shipped, trained = policy.shipped_state(), policy.state()
    assert shipped.keys() == trained.keys()
    assert not equal(shipped, trained)
    assert all(any(torch.equal(tensor, one) for one in average) for tensor in shipped.values()), (
        "the average's own tensors under the LoRA's names"
    )
    latents = torch.randn((2, *policy.model.latent_shape), generator=torch.Generator().manual_seed(0))
    where = latents, trainer.schedule, 1, trainer.conditions.select(torch.tensor([0, 1]))
    rollout = policy.sample_output(*where)
    with policy.as_shipped():
        evaluated = policy.sample_output(*where)
    assert torch.equal(policy.sample_output(*where), rollout), "rollouts go on as before"
    assert equal(policy.state(), trained)
    other = Policy(policy.model, policy.rank, policy.alpha, 0, guidance_scale=policy.guidance_scale)
    other.load_state(shipped)
    torch.testing.assert_close(evaluated, other.sample_output(*where))
    assert not torch.allclose(evaluated, rollout, rtol=1e-3, atol=1e-4)


def test_without_an_average_the_trained_weights_are_shipped():
    for method in ("grpo", "diffusion_nft"):
        trainer = toy("flow", method, learning_rate=0.05, old_decay_rate=0.9, old_decay_max=0.9)
        follow(trainer, 2)
        policy = trainer.policy
        assert equal(policy.shipped_state(), policy.state())
        latents = torch.randn((2, *policy.model.latent_shape), generator=torch.Generator().manual_seed(0))
        where = latents, trainer.schedule, 1, trainer.conditions.select(torch.tensor([0, 1]))
        with policy.as_shipped():
            evaluated = policy.sample_output(*where)
        torch.testing.assert_close(evaluated, policy.output(*where).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["grpo", "awm", "diffusion_nft"])
def test_a_run_with_averages_resumes_bit_for_bit_from_its_file(method, tmp_path):
    settings = {"ema_decay": 0.9, "ema_every": 3, "updates_per_rollout": 2, "old_decay_rate": 0.2}
    whole, first = (toy("flow", method, **settings) for _ in range(2))
    records = follow(whole, 5)
    follow(first, 2)
    folder = RunFolder(tmp_path)
    save_checkpoint(folder, first.checkpoint(1.0))
    saved = load_latest(folder)
    assert equal(saved.trailing, first.policy.trailing_state())
    second = toy("flow", method, **settings)
    second.restore(saved)
    assert timeless(follow(second, 3)) == timeless(records[4:])
    assert equal(second.policy.state(), whole.policy.state())
    assert equal(second.policy.shipped_state(), whole.policy.shipped_state())
    assert equal(second.policy.trailing_state(), whole.policy.trailing_state())


def test_a_run_that_begins_with_a_lora_begins_its_averages_with_it():
    trainer = toy("flow", "awm", ema_decay=0.9)
    follow(trainer, 1)
    policy = trainer.policy
    policy.load_state({name: tensor + 1.0 for name, tensor in policy.state().items()})
    policy.restart_averages()
    assert equal(policy.shipped_state(), policy.state())
    own = lora(trainer)
    assert all(torch.equal(got, wanted) for got, wanted in zip(trailing(trainer), own + own, strict=True))


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


def test_a_run_that_ends_before_the_average_moves_ships_what_it_learned():
    trainer = toy("flow", "grpo", ema_decay=0.9, ema_every=4, learning_rate=0.05, updates_per_rollout=2)
    follow(trainer, 1)
    assert equal(trainer.policy.shipped_state(), trainer.policy.state())
    saved = trainer.checkpoint()
    follow(trainer, 1)
    assert not equal(trainer.policy.shipped_state(), trainer.policy.state())
    trainer.restore(saved)
    assert equal(trainer.policy.shipped_state(), trainer.policy.state())
