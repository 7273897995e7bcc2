"""Numbers of a comparison that need no model: diversity, and scoring in chunks."""

from dataclasses import replace

import pytest
import torch

from trainers import evaluate as ev
from trainers.config import RunConfig

PROMPTS = ["a red circle", "a red circle", "a blue square", "a blue square", "a green triangle"]


def noise(count, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def flat(*levels):
    return torch.stack([torch.full((3, 16, 16), level, dtype=torch.uint8) for level in levels])


def test_equal_pictures_of_a_prompt_have_no_diversity_whatever_other_prompts_show():
    assert ev.diversity(flat(10, 10, 200, 200, 70), PROMPTS) == 0.0


def test_diversity_is_the_root_mean_square_distance_within_a_prompt_averaged_over_prompts():
    assert ev.diversity(flat(0, 255, 0, 51, 70), PROMPTS) == pytest.approx((1.0 + 0.2) / 2, abs=1e-5)


def test_diversity_of_three_pictures_is_the_mean_over_pairs():
    assert ev.diversity(flat(0, 51, 255), ["one"] * 3) == pytest.approx((0.2 + 1.0 + 0.8) / 3, abs=1e-5)


def test_prompts_with_one_picture_say_nothing_about_diversity():
    assert ev.diversity(flat(0, 255), ["one", "other"]) == 0.0


def test_large_pictures_are_compared_as_thumbnails_so_that_grain_is_no_diversity():
    blocks = noise(2, 64)
    large = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert ev.diversity(large, ["one"] * 2) == pytest.approx(ev.diversity(blocks, ["one"] * 2), abs=1e-6)
    assert ev.diversity(noise(2, 256), ["one"] * 2) < 0.5 * ev.diversity(noise(2, 64), ["one"] * 2)


def test_a_long_comparison_is_scored_as_its_pictures_alone():
    config = RunConfig(reward="colorfulness", others="brightness,contrast")
    prompts = ["a red circle"] * (ev.SCORED_TOGETHER + 3)
    items = ev.plan(prompts, len(prompts), 2, 0)[: len(prompts)]
    scorer = ev.load_scorer(config, prompts, "cpu")
    pictures = noise(len(items), 64)
    few = ev.load_scorer(replace(config, eval_batch=5), prompts, "cpu")
    assert (scorer.together, few.together) == (32, 5)
    whole = scorer.score(pictures, items)
    assert torch.equal(whole.reward, few.score(pictures, items).reward)
    for i in (0, len(items) - 1):
        alone = scorer.score(pictures[i : i + 1], items[i : i + 1])
        assert whole.reward[i] == alone.reward[0]
        assert {name: values[i] for name, values in whole.others.items()} == {
            name: values[0] for name, values in alone.others.items()
        }
    assert set(whole.others) == {"brightness", "contrast"}
