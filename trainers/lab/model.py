"""The mixture in the engine's clothes: the perfect network plus a small trainable correction.

``LabModel`` and ``LabPolicy`` answer to the same verbs as a diffusers pipeline and its LoRA policy, so that
the very trainer, estimators and objective of real runs are studied. Points are latents (B, 2, 1, 1);
"pictures" are the points themselves.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from trainers.core.schedule import FLOW, Schedule
from trainers.lab.mixture import LinearReward, Mixture, reference_diffusion, reference_flow
from trainers.models.base import Conditions
from trainers.models.levels import level_by_level
from trainers.models.memory import EVERYTHING
from trainers.policy import ROLLOUT, Policy
from trainers.rewards.contract import Reward

WIDTH = 64


class Correction(nn.Module):
    """An MLP of point, mode shares and time, zero at the start.

    The value's gradient is a simple function of the shares. Without them the network says how near a training
    comes, and not the method: a hundred noise-free updates towards the exact answer left twice the floor.
    """

    dtype = torch.float32

    def __init__(self, seed: int, modes: int, width: int = WIDTH):
        """Draw the weights from a seed."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(5 + modes, width),
                nn.SiLU(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Linear(width, 2),
            )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, points: Tensor, shares: Tensor, noise: float) -> Tensor:
        """Return the change of the output (B, 2) for points (B, 2) and mode shares (B, K)."""
        time = points.new_tensor([noise, noise**2, noise**4]).expand(len(points), 3)
        return self.layers(torch.cat([points / 2.0, 2.0 * shares, time], 1))


class LabModel:
    """A perfect model of the mixture, with a network that corrects its output."""

    guidance_scale = 1.0
    footprint = EVERYTHING
    latent_shape = (2, 1, 1)
    device = torch.device("cpu")
    spec = SimpleNamespace(lora_targets=())

    def __init__(self, family: str, mixture: Mixture, seed: int = 0):
        """Build the model of a family; ``schedule`` says which noise levels it knows."""
        self.family = family
        self.mixture = mixture.to(torch.float32)
        self.network = Correction(seed, len(mixture.centres))
        self._levels: dict[float, tuple[Schedule, int]] = {}

    def use_decoder_precision(self, dtype: torch.dtype) -> None:
        """There is nothing to decode."""

    def encode(self, prompts: Sequence[str]) -> Conditions:
        """Return conditions without content: there is one law only."""
        return Conditions(torch.zeros(len(prompts), 1, 1), None, torch.zeros(1, 1, 1), None)

    def predict(
        self, network: nn.Module, latents: Tensor, timestep: float | Tensor, rows: Conditions
    ) -> Tensor:
        """Return the exact output plus the network's correction, (B, 2, 1, 1)."""
        if isinstance(timestep, Tensor):
            return level_by_level(partial(self.predict, network), latents, timestep, rows)
        schedule, step = self._levels[timestep]
        points = latents.flatten(1)
        signal, noise = float(schedule.signal[step]), float(schedule.noise[step])
        exact = self.mixture.output(schedule, step, points)
        change = network(points, self.mixture.shares(points, signal, noise), noise)
        return (exact + change).view_as(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Return the points themselves."""
        return latents

    def schedule(self, steps: int) -> Schedule:
        """Return the reference schedule of the family with ``steps`` steps."""
        made = reference_flow(steps) if self.family == FLOW else reference_diffusion(500 // steps)
        self._levels |= {float(time): (made, step) for step, time in enumerate(made.timesteps)}
        return made


class LabPolicy(Policy):
    """The policy whose whole correction network is trained; without it, it is the reference."""

    def __init__(self, model: LabModel, micro_batch: int = 4096):
        """Copy the model's correction for training and for sampling."""
        self.model = model
        self.guidance_scale = 1.0
        self.micro_batch = micro_batch
        self.evaluations = self.sampled = 0
        self.network = copy.deepcopy(model.network)
        self._merged = copy.deepcopy(model.network).requires_grad_(False)
        self._base = copy.deepcopy(model.network).requires_grad_(False)
        self._averages, self._sampled = {}, ROLLOUT

    def state(self) -> dict[str, Tensor]:
        """Return the network's tensors by name."""
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back the tensors of ``state``."""
        self.network.load_state_dict(tensors)
        self.refresh()

    def _merge(self) -> None:
        self._merged.load_state_dict(self.network.state_dict())

    @contextlib.contextmanager
    def _adapter_off(self):
        trained, self.network = self.network, self._base
        try:
            yield
        finally:
            self.network = trained


class LabReward(Reward):
    """The linear reward on "pictures" (B, 2, 1, 1)."""

    def __init__(self, reward: LinearReward):
        """Bind the reward."""
        self.reward = reward

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata=None) -> Tensor:
        """Return (B,) rewards."""
        return self.reward(images.flatten(1))
