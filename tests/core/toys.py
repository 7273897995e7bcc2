"""Small float64 worlds for the mathematical tests: schedules, a network and random tensors."""

import torch
from torch import nn

from trainers.core.schedule import Schedule, diffusion_schedule, flow_schedule

SHAPE = (2, 4, 4)


def levels(steps, shift=1.0):
    """Noise levels t of a rectified flow, 1 down to 0."""
    even = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return shift * even / (1.0 + (shift - 1.0) * even)


def flow(steps=6, shift=1.0) -> Schedule:
    sigmas = levels(steps, shift)
    return flow_schedule(sigmas, 1000.0 * sigmas[:-1])


CUMULATIVE = (1.0 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


def alphas(steps):
    """Training steps and their ᾱ, of a thousand-step linear-beta diffusion; the last ᾱ is 1."""
    times = torch.linspace(999, 1000 // steps, steps).round().long()
    return times, torch.cat([CUMULATIVE[times], torch.ones(1, dtype=torch.float64)])


def diffusion(steps=6) -> Schedule:
    times, cumulative = alphas(steps)
    return diffusion_schedule(cumulative, times)


def schedule_of(family, steps=6) -> Schedule:
    return flow(steps) if family == "flow" else diffusion(steps)


class ToyNetwork(nn.Module):
    """o = conv(tanh(conv(x) + time)), (B, C, H, W) → same."""

    def __init__(self, seed=0, channels=SHAPE[0], width=6):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inside = nn.Conv2d(channels, width, 3, padding=1, dtype=torch.float64)
        self.time = nn.Linear(1, width, dtype=torch.float64)
        self.outside = nn.Conv2d(width, channels, 3, padding=1, dtype=torch.float64)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def forward(self, latents, time):
        shift = self.time(torch.full((len(latents), 1), float(time), dtype=torch.float64))
        return self.outside(torch.tanh(self.inside(latents.double()) + shift[:, :, None, None]))


def moved(network, size, seed=99):
    """A copy of a network whose weights are `size` away in a fixed random direction."""
    other = ToyNetwork()
    other.load_state_dict(network.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return other


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss, network):
    """All parameter gradients of a scalar loss as one vector."""
    parts = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    zeros = (
        torch.zeros_like(p) if g is None else g for p, g in zip(network.parameters(), parts, strict=True)
    )
    return torch.cat([part.flatten() for part in zeros])


def relative_error(got, expected):
    return float((got - expected).norm() / expected.norm())
