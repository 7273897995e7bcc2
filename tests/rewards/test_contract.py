"""What every row of the reward table promises, checked on every row."""

import subprocess
import sys

import pytest
import torch

from trainers.config import RunConfig
from trainers.rewards import REWARDS, Reward, load_reward
from trainers.rewards.judge import AnswerStore

PROMPTS = ["a red circle", "three green triangles", "a circle", "a red square left of a blue circle"]
every_reward = pytest.mark.parametrize("spec", REWARDS.specs(), ids=REWARDS.names())


def pictures(dtype=torch.float32):
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.fixture(scope="module", name="loaded")
def fixture_loaded():
    cache = {}
    return lambda spec: (
        cache[spec.name] if spec.name in cache else cache.setdefault(spec.name, spec.load()("cpu"))
    )


def captions(spec):
    """Four captions that the reward can score."""
    return [*spec.examples, *spec.examples][:4] if spec.examples else PROMPTS


@every_reward
def test_row_is_complete(spec):
    assert spec.better == "higher" and spec.low < spec.high
    assert all((spec.title, spec.summary, spec.unit, spec.cost, spec.source))
    assert spec.summary.endswith(".")


@every_reward
def test_shape_type_and_range(spec, loaded):
    reward = loaded(spec)
    assert isinstance(reward, Reward)
    scores = reward(pictures(), captions(spec))
    assert scores.shape == (4,) and scores.dtype == torch.float32
    assert scores.isfinite().all()
    assert (scores >= spec.low).all() and (scores <= spec.high).all()


@every_reward
def test_gradients_flow_exactly_when_the_row_says_so(spec, loaded):
    images = pictures().requires_grad_()
    scores = loaded(spec)(images, captions(spec))
    assert scores.requires_grad == spec.differentiable
    if spec.differentiable:
        scores[0].backward()
        assert images.grad.isfinite().all() and images.grad[0].abs().sum() > 0
        assert images.grad[1:].abs().sum() == 0  # a picture's score depends on that picture alone


@every_reward
def test_scores_do_not_change_between_calls_or_with_order(spec, loaded):
    reward, images, prompts = loaded(spec), pictures(), captions(spec)
    scores = reward(images, prompts)
    forget_answers(reward)
    torch.testing.assert_close(reward(images, prompts), scores, rtol=0, atol=0)
    forget_answers(reward)
    torch.testing.assert_close(reward(images.flip(0), prompts[::-1]).flip(0), scores)


def forget_answers(reward):
    """Have a reward that keeps answers ask anew, else it would be its store that is tested."""
    if hasattr(reward, "store"):
        reward.store = AnswerStore(None)


@every_reward
def test_half_precision_pictures_are_scored_in_float32(spec, loaded):
    scores = loaded(spec)(pictures(torch.bfloat16), captions(spec))
    assert scores.dtype == torch.float32 and scores.isfinite().all()


@every_reward
def test_its_captions_are_valid_and_others_are_told(spec):
    assert spec.unscorable(captions(spec), RunConfig()) == []
    if spec.examples:
        assert "a red circle" in spec.unscorable(PROMPTS, RunConfig())[0]


def test_what_a_reward_cannot_score_is_known_without_torch():
    code = (
        "import sys; from trainers.config import RunConfig; from trainers.rewards import REWARDS; "
        "told = [bool(spec.unscorable(['an astronaut'], RunConfig())) for spec in REWARDS]; "
        "assert told == [bool(spec.reads) for spec in REWARDS] and any(told); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@every_reward
def test_loads_by_name_as_a_mixture_of_one(spec, loaded):
    mixture = load_reward(spec.name)
    assert mixture.differentiable == spec.differentiable and mixture.bounds == (spec.low, spec.high)
    prompts = captions(spec)
    torch.testing.assert_close(mixture(pictures(), prompts), loaded(spec)(pictures(), prompts))


def test_listing_and_parsing_import_no_torch():
    code = (
        "import sys; from trainers.rewards import REWARDS, parse_mixture; REWARDS.names(); "
        "parse_mixture('shapes:1,tiny_clip:0.2'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@every_reward
def test_nothing_stands_in_its_way_here(spec):
    assert spec.obstacles(RunConfig()) == []


@every_reward
def test_what_it_downloads_is_said(spec):
    for part in spec.weights:
        assert part.repo.count("/") == 1 and part.files and part.licence and part.megabytes > 0
