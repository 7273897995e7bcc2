"""Before and after: the same prompts and seeds, sampled by the plain pipeline, scored by several rewards.

Pictures are drawn in float32 by calling the pipeline like any user would and rounded to the 8 bits of the
stored PNG before they are scored, so every number in ``report.json`` can be recomputed from the run folder.
Standard errors are clustered by prompt, because pictures of one prompt are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import RunConfig
from trainers.core.schedule import Schedule
from trainers.core.transition import mean as step_mean
from trainers.errors import InputError
from trainers.image_checks import check_finite
from trainers.models import MODELS
from trainers.models.base import PipelineModel
from trainers.parallel import iterate_chunks, map_chunks
from trainers.rewards import REWARDS, Mixture, Part, load_reward, unscorable
from trainers.samplers.kernels import ode

SEED_STRIDE = 1_000_003
DRIFT_PROMPTS = 32
SCORED_TOGETHER = 32
THUMBNAIL = 64


@dataclass(frozen=True)
class Item:
    """One picture of the comparison: its number, prompt and seed."""

    index: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class Scores:
    """Scores of all pictures of one side.

    Attributes:
        reward: (N,) the optimised reward.
        others: Name → (N,) rewards that were not optimised.
        diversity: Mean pairwise distance between pictures of one prompt.
        pictures: (N, 3, H, W) uint8.
    """

    reward: Tensor
    others: dict[str, Tensor]
    diversity: float
    pictures: Tensor


def plan(prompts: Sequence[str], count: int, samples: int, seed: int) -> list[Item]:
    """Choose the first ``count`` prompts and ``samples`` seeds for each, prompt by prompt."""
    chosen = list(prompts)[:count]
    first = seed * SEED_STRIDE
    return [
        Item(i, prompt, (first + i) % 2**31)
        for i, prompt in enumerate(prompt for prompt in chosen for _ in range(samples))
    ]


def batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut items into batches of ``size``, always the same ones, whatever is drawn already."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def sample_items(
    model: PipelineModel,
    items: Sequence[Item],
    batch: int,
    guidance_scale: float | None,
) -> Iterator[Tensor]:
    """Draw the pictures of all items and yield them batch by batch as (B, 3, H, W) uint8."""
    chunks = batches(items, batch)
    model.remember([item.prompt for item in items])

    def draw(chunk: Sequence[Item]) -> Tensor:
        images = model.sample([i.prompt for i in chunk], [i.seed for i in chunk], guidance_scale)
        check_finite(images, trained=bool(model.lora_names()))
        return (images * 255).round().to(torch.uint8)

    yield from iterate_chunks(draw, chunks, model.device)


@dataclass(frozen=True)
class Scorer:
    """Everything that a comparison is judged by.

    Attributes:
        reward: The optimised reward.
        others: Rewards that were not optimised.
        device: Where they compute.
        together: Pictures that are scored at once.
    """

    reward: Mixture
    others: Mixture
    device: torch.device
    together: int = SCORED_TOGETHER

    def interrupt_with(self, check: Callable[[float], None]) -> None:
        """Let what ``check`` raises end a wait for a server, see ``Reward.interrupt_with``."""
        self.reward.interrupt_with(check)
        self.others.interrupt_with(check)

    def score(self, pictures: Tensor, items: Sequence[Item]) -> Scores:
        """Score (N, 3, H, W) uint8 pictures."""
        prompts = [item.prompt for item in items]

        def run(chunk: slice) -> tuple[Tensor, dict[str, Tensor]]:
            images, words = pictures[chunk].float() / 255, prompts[chunk]
            others = self.others.components(images, words)
            return self.reward(images, words).float().cpu(), {n: v.float().cpu() for n, v in others.items()}

        chunks = [slice(start, start + self.together) for start in range(0, len(prompts), self.together)]
        parts = map_chunks(run, chunks, self.device)
        others = {name: torch.cat([rest[name] for _, rest in parts]) for name in parts[0][1]}
        values = torch.cat([value for value, _ in parts])
        return Scores(values, others, diversity(pictures, prompts), pictures)


def load_scorer(config: RunConfig, prompts: Sequence[str], device: str) -> Scorer:
    """Load the rewards of a comparison on held-out prompts.

    The un-optimised ones are those asked for in ``others``; else the model's usual ones that can score the
    prompts; else the first of the table that can.

    Raises:
        InputError: A reward that was asked for cannot score a prompt.
        FaultError: A file that a reward needs is missing or damaged.
    """
    found = unscorable(config.reward, prompts, config) + unscorable(config.others, prompts, config)
    if found:
        raise InputError(*list(dict.fromkeys(found))[:10])
    reward = load_reward(config.reward, device, config)
    asked = load_reward(config.others, device, config).parts if config.others else ()
    others = asked or _usual_others(config, reward, prompts, device)
    # Who draws fewer pictures at once for want of memory has none for scoring more of them.
    together = min(SCORED_TOGETHER, config.eval_batch)
    return Scorer(reward, Mixture(others), torch.device(device), together)


def _usual_others(config: RunConfig, reward: Mixture, prompts: Sequence[str], device: str) -> list[Part]:
    usual = MODELS.get(config.model).others
    optimised = {part.name for part in reward.parts}
    fitting: list[Part] = []
    for name in dict.fromkeys((*usual, *REWARDS.names())):
        if fitting and name not in usual:
            break
        if name not in optimised and not unscorable(name, prompts, config):
            fitting += load_reward(name, device, config).parts
    return fitting


def diversity(pictures: Tensor, prompts: Sequence[str]) -> float:
    """Return the mean root-mean-square distance between pictures of the same prompt, over prompts.

    Pixels and not the features of a CLIP are compared: those are trained to tell captions apart, so they come
    together when pictures come to show what they should, however different these are (docs/LOG.md).

    Args:
        pictures: (N, 3, H, W) uint8; compared in [0, 1] with at most ``THUMBNAIL`` pixels a side.
        prompts: The N prompts.
    """
    distances = []
    for members in _groups(prompts).values():
        if len(members) < 2:
            continue
        rows = _thumbnails(pictures[members]).flatten(1)
        exact = "donot_use_mm_for_euclid_dist"  # equal pictures are at 0, not near it
        distance = torch.cdist(rows, rows, compute_mode=exact) / rows.shape[1] ** 0.5
        distances.append(distance.sum() / (len(members) * (len(members) - 1)))
    return float(torch.stack(distances).mean()) if distances else 0.0


def _thumbnails(pictures: Tensor) -> Tensor:
    images = pictures.float() / 255
    if max(images.shape[-2:]) <= THUMBNAIL:
        return images
    return functional.interpolate(images, (THUMBNAIL, THUMBNAIL), mode="area")


def _groups(prompts: Sequence[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(i)
    return groups


def clustered(values: Tensor, prompts: Sequence[str]) -> tuple[float, float]:
    """Return the mean of (N,) values and its standard error over prompts."""
    means = torch.stack([values[members].double().mean() for members in _groups(prompts).values()])
    mean = float(values.double().mean())
    if len(means) < 2:
        return mean, 0.0
    return mean, float(means.std(correction=1) / math.sqrt(len(means)))


def summarise(scores: Scores, prompts: Sequence[str]) -> dict:
    """Return one side of the report: reward, others and diversity."""

    def entry(values: Tensor) -> dict:
        mean, stderr = clustered(values, prompts)
        return {"mean": mean, "stderr": stderr}

    return {
        "reward": entry(scores.reward),
        "others": {name: entry(values) for name, values in scores.others.items()},
        "diversity": scores.diversity,
    }


def paired(before: Tensor, after: Tensor, prompts: Sequence[str]) -> dict:
    """Return the paired statistics of (N,) rewards: n, mean gain, its standard error, z and win rate.

    A tie counts as half a win. Without any spread of the gains z is 0.
    """
    gain = after.double() - before.double()
    mean, stderr = clustered(gain, prompts)
    wins = ((gain > 0).double() + 0.5 * (gain == 0).double()).mean()
    return {
        "n": len(gain),
        "mean_gain": mean,
        "stderr": stderr,
        "z": mean / stderr if stderr > 0 else 0.0,
        "win_rate": float(wins),
    }


@torch.no_grad()
def drift(model: PipelineModel, prompts: Sequence[str], seed: int) -> float:
    """Return the relative change of the network's output that the pipeline's adapter causes.

    Over up to 32 prompts, without classifier-free guidance; see ``relative_change``.
    """
    schedule = model.schedule(int(model.call["num_inference_steps"]))
    rows = model.encode(list(prompts)[: min(DRIFT_PROMPTS, model.footprint.micro_batch)]).select(slice(None))
    generator = torch.Generator("cpu").manual_seed(seed)
    shape = (len(rows.embeds), *model.latent_shape)
    latents = torch.randn(shape, generator=generator).to(model.device)

    def adapted(states: Tensor, step: int) -> Tensor:
        return model.predict(model.network, states, float(schedule.timesteps[step]), rows).float()

    def base(states: Tensor, step: int) -> Tensor:
        model.network.disable_lora()
        try:
            return adapted(states, step)
        finally:
            model.network.enable_lora()

    return relative_change(schedule, latents, adapted, base)


def relative_change(
    schedule: Schedule,
    latents: Tensor,
    adapted: Callable[[Tensor, int], Tensor],
    base: Callable[[Tensor, int], Tensor],
) -> float:
    """Return √(E‖o_adapted − o_base‖² / E‖o_base‖²) over the states of the base's deterministic sampling.

    Args:
        schedule: The noise levels.
        latents: (B, C, H, W) initial noise.
        adapted: (states, step) → output of the trained network.
        base: (states, step) → output of the base network.
    """
    changed, size = 0.0, 0.0
    for step in range(schedule.steps):
        before = base(latents, step)
        changed += float(((adapted(latents, step) - before) ** 2).sum())
        size += float((before**2).sum())
        latents = step_mean(ode(schedule, step), latents, before)
    return math.sqrt(changed / size)
