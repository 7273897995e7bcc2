"""Closed forms, ranges and gradients of the rewards that read only pixels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.rewards.brightness import brightness
from trainers.rewards.colorfulness import colorfulness
from trainers.rewards.contrast import contrast
from trainers.rewards.sharpness import sharpness

BOUNDS = {brightness: 1.0, contrast: 1.0, sharpness: 1.0, colorfulness: 3.0}
formulas = pytest.mark.parametrize("formula", BOUNDS, ids=lambda f: f.__name__)


def flat(red, green, blue, size=6):
    return torch.tensor([red, green, blue], dtype=torch.float64)[None, :, None, None].expand(1, 3, size, size)


def halves(left, right, size=6):
    return torch.cat((flat(*left, size)[..., : size // 2], flat(*right, size)[..., : size // 2]), dim=3)


def checkerboard(size=8):
    index = torch.arange(size)
    board = ((index[:, None] + index) % 2).double()
    return board.expand(1, 3, size, size)


def value(formula, images):
    return formula(images).item()


def test_brightness_weighs_the_primaries_as_bt709():
    pictures = torch.cat([flat(1, 0, 0), flat(0, 1, 0), flat(0, 0, 1), flat(1, 1, 1)])
    expected = torch.tensor([0.2126, 0.7152, 0.0722, 1.0], dtype=torch.float64)
    torch.testing.assert_close(brightness(pictures), expected)


def test_contrast_of_black_and_white_halves_is_one():
    assert value(contrast, halves((0, 0, 0), (1, 1, 1))) == pytest.approx(1.0)


def test_contrast_is_twice_the_standard_deviation_of_luma():
    # Two equal halves of luma a and b deviate by |a − b|/2.
    assert value(contrast, halves((1, 0, 0), (0, 1, 0))) == pytest.approx(0.7152 - 0.2126)


def test_sharpness_of_a_checkerboard_is_one():
    # Every interior pixel differs from its four neighbours by ±1: the Laplacian is ±4, evenly split.
    assert value(sharpness, checkerboard()) == pytest.approx(1.0)


def test_sharpness_ignores_a_linear_ramp():
    ramp = torch.linspace(0, 1, 8, dtype=torch.float64).expand(1, 3, 8, 8)
    assert value(sharpness, ramp) == pytest.approx(0.0, abs=1e-12)


def test_sharpness_of_one_step_by_hand():
    # Columns 0 0 0 1 1 1: the interior Laplacian by column is 0, 1, −1, 0, so its deviation is √(1/2).
    assert value(sharpness, halves((0, 0, 0), (1, 1, 1))) == pytest.approx(math.sqrt(0.5) / 4)


def test_colorfulness_of_one_colour_is_its_mean_term():
    # Pure red: rg = 1, yb = 1/2, no spread.
    assert value(colorfulness, flat(1, 0, 0)) == pytest.approx(2.55 * 0.3 * math.sqrt(1.25))


def test_colorfulness_of_red_and_blue_halves_by_hand():
    # Red (rg, yb) = (1, 1/2), blue = (0, −1): means (1/2, −1/4), deviations (1/2, 3/4).
    expected = 2.55 * (math.hypot(0.5, 0.75) + 0.3 * math.hypot(0.5, 0.25))
    assert value(colorfulness, halves((1, 0, 0), (0, 0, 1))) == pytest.approx(expected)


@formulas
@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_flat_grey_has_no_contrast_sharpness_or_colour(formula, level):
    expected = level if formula is brightness else 0.0
    assert value(formula, flat(level, level, level)) == pytest.approx(expected, abs=1e-12)


@formulas
def test_gradient_at_flat_grey_is_finite(formula):
    images = torch.full((2, 3, 8, 8), 0.5, requires_grad=True)
    formula(images).sum().backward()
    assert images.grad.isfinite().all() and images.grad.abs().max() <= 1


@formulas
def test_gradients_agree_with_finite_differences(formula):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 5, 4, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(formula, images)


@formulas
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(3, 9),
    width=st.integers(3, 9),
    steepness=st.floats(0.1, 50),
)
def test_values_stay_in_range(formula, seed, height, width, steepness):
    # A steep sigmoid of noise reaches the corners of the colour cube, where the extremes are.
    noise = torch.randn(4, 3, height, width, generator=torch.Generator().manual_seed(seed))
    scores = formula(torch.sigmoid(steepness * noise))
    assert scores.shape == (4,)
    assert (scores >= -1e-6).all() and (scores <= BOUNDS[formula] + 1e-5).all()


@formulas
def test_each_picture_is_scored_alone(formula):
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(formula(images), torch.cat([formula(image[None]) for image in images]))
