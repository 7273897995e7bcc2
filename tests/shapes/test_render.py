"""The renderer: inside the frame, anti-aliased, never overlapping, varied where it should be."""

import numpy as np
import pytest

from trainers.shapes.grammar import SHAPES, parse
from trainers.shapes.render import coverage, render
from trainers.shapes.scenes import BOXES, GAP, Scene, SceneObject, sample_scene

GRID = np.arange(64, dtype=np.float32) + 0.5


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    return [sample_scene(rng) for _ in range(1500)]


def box(obj):
    left, top, right, bottom = (obj.size * side for side in BOXES[obj.shape])
    return obj.x - left, obj.y - top, obj.x + right, obj.y + bottom


def test_objects_stay_inside_and_apart(scenes):
    for scene in scenes:
        boxes = [box(obj) for obj in scene.objects]
        assert all(b[0] > 0 and b[1] > 0 and b[2] < 1 and b[3] < 1 for b in boxes)
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                gap = max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])
                assert gap >= GAP - 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_is_area_and_centre_of_mass(shape):
    alpha = coverage(shape, GRID[None] - 31.3, GRID[:, None] - 33.8, 12.0)
    area = {"circle": np.pi, "square": 3.24, "triangle": 1.2 * 2.079}[shape] * 144
    assert alpha.sum() == pytest.approx(area, rel=0.02)
    assert (alpha.sum(0) @ GRID) / alpha.sum() == pytest.approx(31.3, abs=0.05)
    assert (alpha.sum(1) @ GRID) / alpha.sum() == pytest.approx(33.8, abs=0.15)
    assert ((alpha > 0) & (alpha < 1)).sum() > 20  # soft edges


def test_moving_by_a_tenth_of_a_pixel_changes_the_picture():
    def at(x):
        return Scene((SceneObject("circle", "red", (1, 0, 0), x, 0.5, 0.2),), 0.9, parse("a red circle"))

    difference = render(at(0.5)).astype(int) - render(at(0.5 + 0.1 / 64)).astype(int)
    assert 0 < np.abs(difference).max() < 40


def test_pictures_are_uint8_squares_of_the_asked_size(scenes):
    for size in (32, 64, 128):
        picture = render(scenes[0], size)
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8


def test_nuisances_vary(scenes):
    red = [obj for scene in scenes for obj in scene.objects if obj.color == "red"]
    saturation = [1 - min(obj.rgb) / max(obj.rgb) for obj in red]
    assert min(saturation) < 0.7 and max(saturation) > 0.95
    assert np.std([scene.background for scene in scenes]) > 0.03
    assert np.std([obj.x for scene in scenes for obj in scene.objects]) > 0.15


def test_same_generator_same_scene():
    assert sample_scene(np.random.default_rng(1)) == sample_scene(np.random.default_rng(1))
