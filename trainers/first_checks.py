"""What a session looks at between loading and training, so that faults and surprises are named early.

Before the baseline: the rewards are tried on two images, and rollouts are held against the pipeline. After
it: whether the reward tells any images apart, and whether the budget has room for training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trainers.cautions import cautions, too_short
from trainers.config import RunConfig
from trainers.core.advantages import zero_spread
from trainers.custom import method_of
from trainers.errors import StudioError
from trainers.evaluate import Item, Scorer, Scores
from trainers.interruption import OutOfTime, StopRequested
from trainers.notes import Notes
from trainers.policy import Policy
from trainers.sampler_check import sampler_sentence

TRIED = 2
CONSTANT, BUDGET = "constant_reward", "budget"


def before_baseline(
    policy: Policy,
    scorer: Scorer,
    items: Sequence[Item],
    config: RunConfig,
    notes: Notes,
    log: Callable[[str], None],
) -> None:
    """Try the rewards, and note what a person should know before they trust the run's numbers.

    Args:
        policy: The policy, untrained.
        scorer: The rewards.
        items: The comparison's images.
        config: The settings.
        notes: Where to note it.
        log: Where to say what could not be found out.

    Raises:
        FaultError: A reward fails.
        StopRequested, OutOfTime: The work is to end.
    """
    for kind, text in cautions(config).items():
        if kind != BUDGET or not notes.has(BUDGET):  # an earlier session may have measured it
            notes.add(kind, text)
    _try_rewards(scorer, items, policy.model.picture_size, method_of(config).order == "first")
    try:
        text = sampler_sentence(policy, items[0].prompt, items[0].seed, config.guidance_scale)
    except (StudioError, StopRequested, OutOfTime):
        raise
    except (
        Exception
    ) as error:  # a scheduler may not take so few steps; what truly fails does so at once again
        log(f"rollouts could not be held against the pipeline: {type(error).__name__}: {error}")
        return
    if text:
        notes.add("sampler", text)


def _try_rewards(scorer: Scorer, items: Sequence[Item], size: tuple[int, int], gradient: bool) -> None:
    prompts = [item.prompt for item in (items[0], items[-1])]
    images = _blurred_noise(size).to(scorer.device)
    scorer.reward.try_out(images, prompts, gradient)
    scorer.others.try_out(images, prompts, False)


def _blurred_noise(size: tuple[int, int]) -> Tensor:
    """Return (TRIED, 3, H, W) images with large shapes, always the same ones."""
    coarse = torch.rand((TRIED, 3, 8, 8), generator=torch.Generator("cpu").manual_seed(0))
    return functional.interpolate(coarse, size, mode="bilinear", antialias=True).clamp(0, 1)


def after_baseline(scores: Scores, config: RunConfig, used: float, still: float, notes: Notes) -> None:
    """Note a reward that is the same for every image, and a budget without room for training.

    Args:
        scores: Of the base model's images.
        config: The settings.
        used: Seconds of the budget that are used.
        still: Seconds that the comparison after training will take.
        notes: Where to note it.
    """
    if len(scores.reward) > 1 and bool(zero_spread(scores.reward)):
        notes.add(CONSTANT, constant_sentence(float(scores.reward[0]), len(scores.reward)))
    if used + still > config.budget_seconds:
        notes.add(BUDGET, too_short(config, 2 * still, used + still))
    else:
        notes.drop(BUDGET)


def constant_sentence(value: float, count: int) -> str:
    """Return what is to be said of a reward that gave every image the same value."""
    return (
        f"The reward gave all {count} images of the base model the same value ({value:.4g}), so nothing "
        "tells a better image from a worse one. Training learns nothing until some image gets another value: "
        "take a graded reward, easier prompts or more images a group. The command 'spread' shows a reward's "
        "spread before a run."
    )


def unchanged_sentence(metrics: Sequence[dict], groups: int, constant: bool) -> str:
    """Return why a trained adapter changes no image, and what may help.

    Args:
        metrics: The run's lines, one per update.
        groups: Groups of images that one rollout compares; 0 where gradients are read.
        constant: Whether the reward was the same for all images of the comparison.
    """
    silent = [line.get("zero_spread_groups") for line in metrics]
    if constant or (groups and silent and all(count == groups for count in silent)):
        return (
            "The adapter does not change a single image, because the reward gave all images that were "
            "compared the same value and so nothing could be learned. Take a graded reward, easier prompts "
            "or more images a group; the command 'spread' shows a reward's spread before a run."
        )
    if metrics and all(line.get("grad_norm") == 0.0 for line in metrics):
        return (
            "The adapter does not change a single image, because the reward gave no direction in any update. "
            "Choose another reward or another method."
        )
    return (
        "The saved adapter does not change a single image after reloading, so the training had no effect. "
        "Train longer or with a larger learning_rate."
    )
