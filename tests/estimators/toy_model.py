"""A small, complete model for the estimators and the trainer: network, text encoding, decoder and schedule.

It answers to the same verbs as a loaded diffusers pipeline, in a few hundred parameters, so that a training
step takes milliseconds. Its output is the exact one of latents that are N(0, 1) plus a small random network.
"""

from dataclasses import dataclass
from functools import partial

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from tests.core.toys import CUMULATIVE, SHAPE, randn, schedule_of
from trainers.estimators.contract import Task
from trainers.models.base import Conditions
from trainers.models.levels import level_by_level
from trainers.models.memory import EVERYTHING
from trainers.rewards.contract import Reward

WORDS = ("dot", "line", "ring", "star", "wave")


class ToyDenoiser(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """o = to_out(tanh(to_in(x) + time + text))."""

    @register_to_config
    def __init__(self, width: int = 8):
        super().__init__()
        self.to_in = nn.Conv2d(SHAPE[0], width, 3, padding=1)
        self.time = nn.Linear(1, width)
        self.text = nn.Linear(4, width)
        self.to_out = nn.Conv2d(width, SHAPE[0], 3, padding=1)

    def forward(self, latents, timestep, embeds):
        times = torch.full((len(latents), 1), timestep / 1000, dtype=latents.dtype)
        shift = self.time(times) + self.text(embeds.mean(1))
        return self.to_out(torch.tanh(self.to_in(latents) + shift[:, :, None, None]))


class ToyDecoder(nn.Module):
    """(B, 2, 4, 4) latents → (B, 3, 8, 8) pictures in (0, 1)."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(SHAPE[0], 3, 2, stride=2)

    def forward(self, latents):
        return torch.sigmoid(self.up(latents))


@dataclass(frozen=True)
class ToySpec:
    lora_targets: tuple[str, ...] = ("to_in", "to_out", "text")


def randomise(module, seed, size):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return module


class ToyModel:
    """What the engine asks of a model, in one precision."""

    spec = ToySpec()
    guidance_scale = 1.0
    footprint = EVERYTHING
    latent_shape = SHAPE
    device = torch.device("cpu")

    def __init__(self, family="flow", dtype=torch.float32):
        self.family = family
        with torch.random.fork_rng(devices=[]):
            self.network = randomise(ToyDenoiser(), 1, 0.4).to(dtype).requires_grad_(False).eval()
            base = randomise(ToyDenoiser(), 3, 0.4)  # of ``ToyPolicy``; a LoRA's base is ``network`` itself
            self.base_network = base.to(dtype).requires_grad_(False).eval()
            self.decoder = randomise(ToyDecoder(), 2, 0.5).to(dtype).requires_grad_(False)
        self.decoded = []

    def classifier_free_scale(self, asked=None):
        return self.guidance_scale if asked is None else asked

    def use_decoder_precision(self, dtype):
        self.decoder.to(dtype)

    def encode(self, prompts):
        rows = [randn(3, 4, seed=10 + WORDS.index(word)) for word in prompts]
        embeds = torch.stack(rows).to(self.network.dtype)
        return Conditions(embeds, None, torch.zeros(1, 3, 4).to(self.network.dtype), None)

    def predict(self, network, latents, timestep, rows):
        if isinstance(timestep, torch.Tensor):
            return level_by_level(partial(self.predict, network), latents, timestep, rows)
        latents = latents.to(network.dtype)
        return self.exact(timestep) * latents + 0.5 * network(latents, timestep, rows.embeds)

    def exact(self, timestep):
        """E[ε − x0 | x]/x of the flow or E[ε | x]/x of the diffusion, for x0 ~ N(0, 1)."""
        if self.family == "flow":
            t = timestep / 1000
            return (2 * t - 1) / (t**2 + (1 - t) ** 2)
        return float((1 - CUMULATIVE[int(timestep)]).sqrt())

    def decode(self, latents):
        self.decoded.append(latents.detach())
        return self.decoder(latents.to(next(self.decoder.parameters()).dtype))

    def schedule(self, steps):
        return schedule_of(self.family, steps)


class ToyPolicy:
    """A policy without a LoRA that answers in the model's precision; its base model is another network."""

    def __init__(self, model, micro_batch=128):
        self.model = model
        self.micro_batch = micro_batch

    def output(self, latents, schedule, step, rows):
        return self.model.predict(self.model.network, latents, float(schedule.timesteps[step]), rows)

    def base_output(self, latents, schedule, step, rows):
        return self.model.predict(self.model.base_network, latents, float(schedule.timesteps[step]), rows)

    @torch.no_grad()
    def old_output(self, latents, schedule, step, rows):
        return self.output(latents, schedule, step, rows)

    def sample_output(self, latents, schedule, step, rows):
        return self.old_output(latents, schedule, step, rows.select(slice(None)))


class Smooth(Reward):
    """A differentiable reward that depends on the prompt: how much a picture looks like the prompt's word."""

    def __call__(self, images, prompts, metadata=None):
        self.calls = [*getattr(self, "calls", []), (images.detach(), list(prompts))]
        patterns = torch.stack([randn(3, 8, 8, seed=30 + WORDS.index(word)) for word in prompts])
        return 20.0 * (images * patterns.to(images.dtype) + images.pow(2)).mean((1, 2, 3))


class Constant(Reward):
    """Says the same of every picture."""

    def __call__(self, images, prompts, metadata=None):
        return 0.0 * images.mean((1, 2, 3)) + 0.3


def task_of(
    family="flow", prompts=WORDS[:3], reward=None, steps=6, micro_batch=128, dtype=torch.float64, seed=0
):
    model = ToyModel(family, dtype)
    generators = {
        name: torch.Generator().manual_seed(100 * seed + number)
        for number, name in enumerate(("latents", "transitions", "steps"))
    }
    return Task(
        ToyPolicy(model, micro_batch),
        model.schedule(steps),
        list(prompts),
        model.encode(prompts),
        torch.arange(len(prompts)),
        reward or Smooth(),
        generators,
    )
