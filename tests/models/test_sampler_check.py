"""Rollouts are held against the pipeline on one latent, and a sampler that draws other images is named."""

import dataclasses

import diffusers
import pytest
import torch

from tests.models.tiny_pipelines import build, save
from trainers.models import MODELS
from trainers.models.base import load_model
from trainers.models.tiny_sizes import TINY
from trainers.policy import Policy
from trainers.sampler_check import sampler_sentence

DISTURBING = {
    "EulerAncestralDiscreteScheduler": "tiny-sdxl",
    "DDPMScheduler": "tiny-sd15",
    "LCMScheduler": "tiny-sd15",
    "HeunDiscreteScheduler": "tiny-sd15",
}
AGREEING = {
    "DDIMScheduler": "tiny-sd15",
    "EulerDiscreteScheduler": "tiny-sd15",
    "DPMSolverMultistepScheduler": "tiny-sdxl",
}


def policy_of(folder, name="tiny-sd15"):
    spec = MODELS.get(str(folder))
    model = load_model(dataclasses.replace(spec, call={**spec.call, **TINY[name].call}))
    return Policy(model, 2, 2.0, 0, torch.float32, None, 8)


@pytest.mark.parametrize("name", TINY)
def test_a_checkpoint_of_every_family_draws_what_its_rollouts_draw(name, tmp_path):
    policy = policy_of(save(name, tmp_path / name), name)
    before = policy.evaluations, policy.sampled
    assert sampler_sentence(policy, "a red circle", 3, None) == ""
    assert (policy.evaluations, policy.sampled) == before, "what is only looked at is not counted as training"


def with_scheduler(name, scheduler, folder):
    pipe = build(name)
    kind = getattr(diffusers, scheduler)
    pipe.scheduler = kind.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.mark.parametrize(("scheduler", "name"), DISTURBING.items())
def test_a_sampler_that_adds_noise_or_takes_other_steps_is_named(scheduler, name, tmp_path):
    text = sampler_sentence(
        policy_of(with_scheduler(name, scheduler, tmp_path / "m")), "a red circle", 3, None
    )
    assert scheduler in text and "the comparison is drawn by the pipeline" in text


@pytest.mark.parametrize(("scheduler", "name"), AGREEING.items())
def test_a_sampler_whose_step_is_the_rollout_s_is_not(scheduler, name, tmp_path):
    policy = policy_of(with_scheduler(name, scheduler, tmp_path / "m"))
    assert sampler_sentence(policy, "a red circle", 3, None) == ""


def test_with_another_decoder_nothing_is_claimed(tmp_path):
    policy = policy_of(with_scheduler("tiny-sd15", "DDPMScheduler", tmp_path / "m"))
    assert sampler_sentence(policy, "a red circle", 3, None)
    policy.model.spec = dataclasses.replace(policy.model.spec, decoder="tiny")
    assert sampler_sentence(policy, "a red circle", 3, None) == ""
