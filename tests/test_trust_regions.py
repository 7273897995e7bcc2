"""Trust regions act in the default runs of the embedded models: something is cut off or pulled back.

Only what costs time is made smaller: prompts and samples of a prompt. Learning rate, updates of a rollout,
clip and weights are those of a newcomer's run, with a reward that the row can follow.
"""

import dataclasses

import pytest
import torch

from tests.trainer_cases import SHIPPED
from trainers.loop import Trainer
from trainers.methods import METHODS
from trainers.models import MODELS
from trainers.models.base import load_model
from trainers.presets import default_config
from trainers.prompts import load_prompts
from trainers.rewards import load_reward

CLIPS = ("clip", "fair_clip", "normalised_clip")
REGIONS = [
    (family, method.name)
    for method in METHODS.specs()
    for family in method.home
    if method.trust_region in (*CLIPS, "old") or method.average == "pull"
]
REWARDS = {"zeroth": "shapes", "first": "tiny_clip"}
UPDATES = 5

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models():
    return {family: load_model(MODELS.get(name)) for family, name in SHIPPED.items()}


@pytest.fixture(scope="module")
def rewards():
    return {name: load_reward(name) for name in REWARDS.values()}


def small(family, method):
    """The default settings, with as few pictures as still compare with each other."""
    config = default_config(SHIPPED[family], method, REWARDS[METHODS.get(method).order])
    many = method == "grpo_guard"  # cuts off few of a rollout's branches, so there must be many
    sizes = {"prompts_per_update": 8 if many else 2, "group_size": 8 if many else 4}
    return dataclasses.replace(config, **sizes)


@pytest.mark.parametrize(("family", "method"), REGIONS)
def test_the_trust_region_acts_within_five_updates(models, rewards, family, method):
    config = small(family, method)
    prompts = load_prompts(config.prompts)
    trainer = Trainer(config, models[family], rewards[config.reward], prompts, torch.float32)
    records = []
    while len(records) < UPDATES and not acts(records):
        records += trainer.advance()
    assert acts(records[:UPDATES]), [(record.clip_fraction, record.pull) for record in records]


def acts(records):
    return any(record.clip_fraction > 0 or record.pull > 0 for record in records)
