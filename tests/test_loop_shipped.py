"""The trainer on the two shipped models: ratio one, exact restarts, and brightness that rises."""

import pytest
import torch

from tests.trainer_cases import EVERY, SHIPPED, BlackBox, equal, follow, gain
from trainers.loop import Trainer
from trainers.models import MODELS
from trainers.models.base import load_model
from trainers.presets import build_config
from trainers.rewards import load_reward

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shipped():
    """Loaded pipelines by family; a trainer copies what it changes."""
    return {family: load_model(MODELS.get(name)) for family, name in SHIPPED.items()}


def real(shipped, family, method, reward="brightness", **settings):
    settings = {
        "rollout_steps": 3,
        "branches": "3,3",
        "prompts_per_update": 3,
        "group_size": 3,
        "dtype": "float32",
    } | settings
    config = build_config(SHIPPED[family], method, reward, settings)
    prompts = ["a red circle", "two blue squares", "a green triangle", "a yellow circle"]
    return Trainer(config, shipped[family], load_reward(reward), prompts, torch.float32)


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_a_shipped_model_learns_brightness_from_gradients(shipped, family):
    trainer = real(
        shipped,
        family,
        f"rsm_first_order_{family}",
        learning_rate=3e-3,
        prompts_per_update=8,
        reward_scale=1.0,
    )
    mean, error = gain(trainer, 3, pictures=64)
    assert mean > 5 * error


def test_a_shipped_model_learns_brightness_as_a_black_box(shipped):
    trainer = real(
        shipped,
        "flow",
        "rsm_zeroth_order_flow",
        learning_rate=3e-3,
        prompts_per_update=8,
        branches="8,8",
        kl_weight=0.0,
    )
    trainer.reward = BlackBox(trainer.reward)
    mean, error = gain(trainer, 4, pictures=64)
    assert mean > 5 * error


# -- the shipped models ------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "method"), EVERY[:5])
def test_a_shipped_model_starts_at_ratio_one_and_continues_bit_for_bit(shipped, family, method):
    whole = real(shipped, family, method)
    records = follow(whole, 2)
    assert len(records) == 2 * whole.config.updates_per_rollout
    firsts = records[:: whole.config.updates_per_rollout]
    assert {(record.ratio_mean, record.clip_fraction) for record in firsts} == {(1.0, 0.0)}
    first = real(shipped, family, method)
    follow(first, 1)
    second = real(shipped, family, method)
    second.restore(first.checkpoint(0.0))
    follow(second, 1)
    assert equal(second.policy.state(), whole.policy.state())


@pytest.mark.parametrize(("family", "method"), EVERY)
def test_every_row_updates_a_shipped_model(shipped, family, method):
    """One small rollout of each row through the real pipeline, decoder and reward gradient."""
    settings = {"rollout_steps": 3, "branches": "2,2", "prompts_per_update": 2, "group_size": 2}
    trainer = real(shipped, family, method, reward="brightness", **settings)
    before = trainer.policy.state()
    records = trainer.advance()
    assert len(records) == trainer.config.updates_per_rollout
    assert records[0].grad_norm > 0, "a later one may find every branch beyond its trust region"
    assert not equal(before, trainer.policy.state())
