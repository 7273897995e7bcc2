import math

import pytest
import torch

from trainers.config import RunConfig
from trainers.errors import FaultError, InputError
from trainers.registry import Registry
from trainers.rewards import (
    REWARDS,
    Mixture,
    Part,
    Reward,
    RewardSpec,
    load_reward,
    parse_mixture,
    unscorable,
)
from trainers.rewards.mixture import load_mixture


class Constant(Reward):
    def __init__(self, value):
        self.value = value

    def __call__(self, images, prompts, metadata=None):
        return torch.full((len(images),), self.value)


def constant_row(name, value, differentiable=True):
    bounds = {"low": -1.0, "high": 1.0, "unit": "1", "cost": "none", "source": "here"}
    row = RewardSpec(
        name=name, title=name, summary="Constant.", target="m:a", differentiable=differentiable, **bounds
    )
    return Part(row, 1.0, Constant(value))


def problems(text):
    with pytest.raises(InputError) as caught:
        parse_mixture(text)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("shapes", (("shapes", 1.0),)),
        ("shapes:1,tiny_clip:0.2", (("shapes", 1.0), ("tiny_clip", 0.2))),
        (" brightness : -2.5 , contrast ", (("brightness", -2.5), ("contrast", 1.0))),
    ],
)
def test_parse(text, parts):
    assert parse_mixture(text) == parts


@pytest.mark.parametrize("weight", ["", "x", "nan", "inf", "-inf", "0", "-0.0", "1e-400", "1e39", "1:2"])
def test_a_weight_must_be_a_finite_non_zero_number(weight):
    (problem,) = problems(f"shapes:{weight}")
    assert problem.startswith(f"The weight '{weight}' of 'shapes' must be a number")


@pytest.mark.parametrize("text", ["", " ", ",", "shapes,", ":1"])
def test_empty_parts_are_refused(text):
    assert "has an empty part" in problems(text)[0]


def test_every_problem_is_reported_at_once():
    found = problems("shpaes:1,contrast:much,contrast:2,:3")
    assert len(found) == 4
    assert "Did you mean 'shapes'?" in found[0] and all(name in found[0] for name in REWARDS.names())
    assert "'much' of 'contrast'" in found[1]
    assert "'contrast' is given twice" in found[2]
    assert "empty part" in found[3]


def test_value_is_the_weighted_sum_of_its_components():
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mixture = load_reward("brightness:2,contrast:-0.5")
    parts = mixture.components(images, ["", "", ""])
    assert list(parts) == ["brightness", "contrast"]
    torch.testing.assert_close(
        mixture(images, ["", "", ""]), 2 * parts["brightness"] - 0.5 * parts["contrast"]
    )
    assert mixture.bounds == (-0.5, 2.0)
    assert [(part.name, part.weight) for part in mixture.parts] == [("brightness", 2.0), ("contrast", -0.5)]


def test_a_black_box_part_makes_the_sum_a_black_box():
    images = torch.rand(2, 3, 16, 16).requires_grad_()
    mixture = load_reward("brightness,jpeg_compressibility:0.1")
    assert not mixture.differentiable
    assert not mixture(images, ["", ""]).requires_grad
    assert mixture.bounds == (-math.inf, 1.0)


def test_gradient_of_a_differentiable_sum_is_the_sum_of_gradients():
    images = torch.rand(1, 3, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(load_reward("brightness:3")(images, [""]).sum(), images)
    expected = 3 * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None].expand(3, 8, 8) / 64
    torch.testing.assert_close(gradient[0], expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_stops_with_its_reward_and_value(value):
    mixture = Mixture([constant_row("fine", 1.0), constant_row("broken", value)])
    with pytest.raises(FaultError) as caught:
        mixture(torch.zeros(2, 3, 4, 4), ["", ""])
    assert "'broken'" in str(caught.value) and str(value) in str(caught.value)


def test_prompt_problems_of_all_parts_are_joined_without_repeats():
    prompts = ["a circle", "a photo of an astronaut"]
    found = unscorable("shapes,shapes_exact:0.5,brightness", prompts, RunConfig())
    assert len(found) == 1 and "a photo of an astronaut" in found[0]


def test_a_table_of_one_s_own_can_be_mixed():
    brightness = REWARDS.get("brightness")
    table = Registry("reward", [brightness])
    assert load_mixture("brightness:2", "cpu", table).parts[0].spec is brightness
    with pytest.raises(InputError, match="Valid: brightness"):
        load_mixture("shapes", "cpu", table)
