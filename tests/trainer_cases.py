"""What the trainer tests share: small trainers, comparisons of states and of metrics."""

import torch

from tests.estimators.toy_model import WORDS, Smooth, ToyModel
from trainers.config import RunConfig
from trainers.loop import Trainer
from trainers.methods import METHODS, fitting_methods
from trainers.rewards.contract import Reward

METHODS_OF = {family: fitting_methods(family, differentiable=True) for family in ("flow", "diffusion")}
EVERY = [(family, method) for family, methods in METHODS_OF.items() for method in methods]
SHIPPED = {"flow": "tiny-flow", "diffusion": "tiny-diffusion"}


def toy(family, method, reward=None, **settings):
    settings = (
        {
            "rollout_steps": 4,
            "branches": (3, 3),
            "prompts_per_update": 4,
            "group_size": 3,
            "lora_rank": 2,
            "lora_alpha": 4.0,
            "kl_weight": 0.01,
            "old_weight": 0.1,
            "seed": 3,
        }
        | dict(METHODS.get(method).defaults)
        | settings
    )
    config = RunConfig(estimator=method, **settings)
    return Trainer(config, ToyModel(family), reward or Smooth(), WORDS, torch.float32)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def timeless(records):
    """Metrics without what depends on the clock or the process."""
    changing = ("seconds", "images_per_second", "peak_memory_mb", "rollout_seconds", "update_seconds")
    return [{k: v for k, v in record.record().items() if k not in changing} for record in records]


def follow(trainer, rollouts):
    return [record for _ in range(rollouts) for record in trainer.advance()]


# -- exactness ---------------------------------------------------------------------------------------


class BlackBox(Reward):
    """A reward of which only the value is seen."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, images, prompts, metadata=None):
        return self.inner(images.detach(), prompts).detach()


def gain(trainer, rollouts, pictures=256):
    """Rise of the reward from before to after, and its standard error, on equal starting noise."""
    policy = trainer.policy
    index = torch.arange(len(trainer.prompts)).repeat(pictures // len(trainer.prompts))
    start = torch.randn((len(index), *policy.model.latent_shape), generator=torch.Generator().manual_seed(77))
    scores = []
    for count in (0, rollouts):
        follow(trainer, count)
        latents = start
        rows = trainer.conditions.select(index)
        for step in range(trainer.schedule.steps):
            output = policy.sample_output(latents, trainer.schedule, step, rows)
            now, after = (float(trainer.schedule.noise[i]) for i in (step, step + 1))
            if trainer.schedule.family == "flow":
                latents = latents - (now - after) * output
            else:
                signal, later = (float(trainer.schedule.signal[i]) for i in (step, step + 1))
                latents = later * (latents - now * output) / signal + after * output
        with torch.no_grad():
            images = policy.model.decode(latents)
            scores.append(trainer.reward(images, [trainer.prompts[i] for i in index.tolist()]).double())
    rise = scores[1] - scores[0]
    return float(rise.mean()), float(rise.std() / len(rise) ** 0.5)
