"""Detector and checker: right on clean pictures, graded in between, nothing for garbage."""

import numpy as np
import pytest
from scipy import ndimage

from trainers.shapes.checker import check, score_batch
from trainers.shapes.detector import UNKNOWN, detect
from trainers.shapes.grammar import parse, render_caption
from trainers.shapes.prompts import choose
from trainers.shapes.render import render
from trainers.shapes.scenes import Scene, SceneObject, sample_scene

PROMPTS = choose(heldout=True)


def draw(text, seed=0):
    return render(sample_scene(np.random.default_rng(seed), parse(text)))


def test_clean_pictures_are_exact():
    rng = np.random.default_rng(11)
    scenes = [sample_scene(rng) for _ in range(4500)]
    scenes += [sample_scene(rng, parse(PROMPTS[i % len(PROMPTS)])) for i in range(500)]
    pictures = np.stack([render(scene) for scene in scenes])
    fractions, exacts = score_batch(pictures, [render_caption(scene.spec) for scene in scenes])
    assert exacts.mean() >= 0.995
    assert fractions.mean() >= 0.995


def test_detection_recovers_position_and_size():
    rng = np.random.default_rng(12)
    for _ in range(100):
        scene = sample_scene(rng)
        found = detect(render(scene).astype(np.float32) / 255)
        for obj in scene.objects:
            nearest = min(found, key=lambda got: abs(got.x - obj.x) + abs(got.y - obj.y))
            assert (nearest.shape, nearest.color) == (obj.shape, obj.color)
            assert abs(nearest.x - obj.x) + abs(nearest.y - obj.y) < 0.02
            assert nearest.size == pytest.approx(obj.size, rel=0.12)


@pytest.mark.parametrize(
    ("shown", "asked", "fraction"),
    [
        ("a red circle", "a red circle", 1.0),
        ("a red circle", "a red square", 0.5),
        ("a red circle", "a blue circle", 0.5),
        ("a red circle", "a blue square", 0.0),
        ("a red circle", "a circle", 1.0),
        ("a red circle", "a square", 0.0),
        ("a red circle", "two red circles", 0.5),
        ("three red circles", "two red circles", 2 / 3),
        ("three red circles", "four red circles", 0.75),
        ("a red circle and a blue square", "a red circle", 0.5),
        ("a red circle and a blue square", "a blue circle and a red square", 0.5),
        ("a red circle and a blue square", "a blue square and a circle", 1.0),
        ("a red circle left of a blue square", "a red circle left of a blue square", 1.0),
        ("a red circle left of a blue square", "a blue square right of a red circle", 1.0),
        ("a red circle left of a blue square", "a red circle right of a blue square", 0.75),
    ],
)
def test_partial_credit(shown, asked, fraction):
    for seed in range(5):
        verdict = check(draw(shown, seed), asked)
        assert verdict.fraction == pytest.approx(fraction, abs=1e-6)
        assert verdict.exact == (fraction == 1.0)


def test_a_relation_earns_credit_by_its_angle():
    def at(angle):
        dx, dy = 0.3 * np.cos(angle), 0.3 * np.sin(angle)
        objects = (
            SceneObject("circle", "red", (1, 0, 0), 0.5 - dx / 2, 0.5 - dy / 2, 0.1),
            SceneObject("square", "blue", (0, 0, 1), 0.5 + dx / 2, 0.5 + dy / 2, 0.1),
        )
        text = "a red circle left of a blue square"
        return check(render(Scene(objects, 0.9, parse(text))), text).fraction

    credits = [at(np.deg2rad(degrees)) for degrees in (0, 40, 55, 70, 85, 120)]
    assert credits[0] == credits[1] == 1.0
    assert all(a > b for a, b in zip(credits[1:-1], credits[2:], strict=True))
    assert credits[-1] == pytest.approx(0.75)


def malformed():
    rng = np.random.default_rng(13)
    shape = (300, 64, 64, 3)
    yield "blank", np.full(shape, 235, np.uint8)
    yield "coloured blank", np.broadcast_to(rng.integers(0, 256, (300, 1, 1, 3)), shape).astype(np.uint8)
    yield "noise", rng.integers(0, 256, shape, dtype=np.uint8)
    yield "blocks", rng.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    yield "saturated", 255 * rng.integers(0, 2, (300, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    soft = [ndimage.zoom(rng.random((6, 6, 3)), (64 / 6, 64 / 6, 1), order=1) for _ in range(300)]
    yield "soft", (np.stack(soft) * 255).astype(np.uint8)
    stripes = np.full(shape, 240, np.uint8)
    stripes[:, 10:54, ::9] = (255, 0, 0)
    yield "stripes", stripes


@pytest.mark.parametrize(
    ("name", "pictures"), list(malformed()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_garbage_earns_almost_nothing(name, pictures):
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(len(pictures))]
    fractions, exacts = score_batch(pictures, prompts)
    assert fractions.mean() < 0.1
    assert exacts.mean() == 0


def test_a_crowd_of_every_object_earns_little():
    objects = [
        SceneObject(shape, "red", (1, 0, 0), (column + 0.5) / 4, (row + 0.5) / 4, 0.07)
        for row in range(4)
        for column, shape in enumerate(("circle", "square", "circle", "square"))
    ]
    picture = render(Scene(tuple(objects), 0.9, parse("a circle")))
    assert check(picture, "a red circle").fraction < 0.1


@pytest.mark.parametrize("cut", ["half", "ring", "two colours"])
def test_malformed_objects_are_unknown(cut):
    circle = SceneObject("circle", "red", (1, 0, 0), 0.5, 0.5, 0.2)
    picture = render(Scene((circle,), 0.9, parse("a red circle")))
    if cut == "half":
        picture[:, 32:] = 230
    elif cut == "ring":
        picture[24:40, 24:40] = 230
    else:
        picture[:, 32:][picture[:, 32:, 1] < 100] = (0, 0, 255)
    (found,) = detect(picture)
    assert UNKNOWN in (found.shape, found.color)
    assert not check(picture, "a red circle").exact


def test_small_disturbances_do_not_matter():
    rng = np.random.default_rng(14)
    picture = draw("a red circle left of a blue square").astype(float)
    blurred = ndimage.gaussian_filter(picture, (0.7, 0.7, 0)) + rng.normal(0, 6, picture.shape)
    blurred[2, 2] = 0  # a speck
    assert check(blurred.clip(0, 255).astype(np.uint8), "a red circle left of a blue square").exact


def test_float_and_uint8_agree():
    picture = draw("two green squares")
    assert detect(picture) == detect(picture.astype(np.float32) / 255)


def test_batch_types_and_errors():
    fractions, exacts = score_batch(np.stack([draw("a red circle")] * 2), ["a red circle", "a blue circle"])
    assert (fractions.dtype, exacts.dtype) == (np.float32, bool)
    with pytest.raises(ValueError, match="Cannot read"):
        score_batch(np.zeros((1, 64, 64, 3), np.uint8), ["a dog"])
