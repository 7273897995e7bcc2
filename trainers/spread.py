"""Does a reward tell pictures apart? A few base samples are drawn and scored; nothing is learned from them.

Methods learn from differences between pictures of one prompt. Where the untouched model's pictures of a
prompt all get the same reward there is nothing to learn, whatever the method. Nothing is trained and no run
is made.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from trainers import evaluate as ev
from trainers.config import RunConfig
from trainers.core.advantages import zero_spread
from trainers.errors import InputError
from trainers.long_prompts import used_prompts
from trainers.machine import choose_device, quiet_libraries, use_threads
from trainers.models.base import load_model
from trainers.models.configured import configured
from trainers.rewards import Mixture, load_reward, unscorable

PROMPTS, SAMPLES = 8, 4


@dataclass(frozen=True)
class Spread:
    """Rewards of base samples.

    Attributes:
        prompts: Prompts that were drawn.
        samples: Pictures of each.
        mean: Mean reward.
        spread: Mean over prompts of the standard deviation within the prompt.
        between: Standard deviation of the prompts' means.
        silent: Prompts whose pictures all got the same reward.
        seconds: Seconds for loading, drawing and scoring.
    """

    prompts: int
    samples: int
    mean: float
    spread: float
    between: float
    silent: int
    seconds: float

    def record(self) -> dict:
        """Return the fields as a mapping."""
        return asdict(self)


def check_spread(config: RunConfig, prompts: int = PROMPTS, samples: int = SAMPLES) -> Spread:
    """Draw and score base samples of training prompts.

    Args:
        config: Model, reward, prompts, seed, device and threads count.
        prompts: How many prompts, spread evenly over the set.
        samples: Pictures of each.

    Raises:
        InputError: The reward cannot score a prompt, or the model cannot read one.
        FaultError: A file is missing or damaged.
    """
    started = time.perf_counter()
    device = choose_device(config)
    quiet_libraries()
    use_threads(config)
    texts = used_prompts(config, "prompts")
    count = min(prompts, len(texts))
    chosen = [texts[i * len(texts) // count] for i in range(count)]
    reward = load_reward(config.reward, device, config)
    model = load_model(configured(config), device)
    found = unscorable(config.reward, chosen, config)
    if found:
        raise InputError(*list(dict.fromkeys(found))[:10])
    items = ev.plan(chosen, count, samples, config.seed)
    # Small batches keep every core busy.
    pictures = torch.cat(list(ev.sample_items(model, items, samples * 2, config.guidance_scale)))
    scores = ev.Scorer(reward, Mixture(()), torch.device(device)).score(pictures, items)
    return summarise(scores.reward.view(count, samples), time.perf_counter() - started)


def summarise(rewards: Tensor, seconds: float) -> Spread:
    """Return the statistics of rewards (P, K): K pictures of each of P prompts."""
    rewards = rewards.double()
    return Spread(
        prompts=rewards.shape[0],
        samples=rewards.shape[1],
        mean=float(rewards.mean()),
        spread=float(rewards.std(dim=1, correction=1).mean()),
        between=float(rewards.mean(dim=1).std(correction=1)) if len(rewards) > 1 else 0.0,
        silent=int(zero_spread(rewards).sum()),
        seconds=seconds,
    )
