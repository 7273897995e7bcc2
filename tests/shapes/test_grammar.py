"""Captions: reading is the inverse of writing, and the held-out split is what the docstring says."""

import itertools

import numpy as np
import pytest

from trainers.shapes.grammar import (
    CATEGORIES,
    COLORS,
    HELDOUT_LONE,
    SHAPES,
    CaptionSpec,
    ObjectSpec,
    is_heldout,
    parse,
    picture_is_heldout,
    render_caption,
)
from trainers.shapes.prompts import all_captions, choose
from trainers.shapes.scenes import relation_of, sample_caption, sample_scene, sample_spec, true_captions

NOUNS = [ObjectSpec(shape, color) for shape in SHAPES for color in COLORS]


def test_every_caption_round_trips():
    captions = all_captions()
    texts = [render_caption(spec) for spec in captions]
    assert [parse(text) for text in texts] == captions
    assert len(set(texts)) == len(texts) == 1701
    assert {spec.category for spec in captions} == set(CATEGORIES)
    assert max(len(text.split()) for text in texts) == 8


def test_case_space_and_full_stop_do_not_matter():
    assert parse("  A Red  circle LEFT of a blue square. ") == parse("a red circle left of a blue square")


@pytest.mark.parametrize(
    ("text", "category", "count", "relation"),
    [
        ("a circle", "single_object", 1, ""),
        ("a red circle", "colors", 1, ""),
        ("one red circle", "counting", 1, ""),
        ("three green triangles", "counting", 3, ""),
        ("a red circle and a square", "two_object", 1, ""),
        ("a circle and a square", "two_object", 1, ""),
        ("a red circle above a blue square", "position", 1, "above"),
        ("a red circle and a blue square", "color_attr", 1, ""),
    ],
)
def test_categories(text, category, count, relation):
    spec = parse(text)
    assert (spec.category, spec.count, spec.relation) == (category, count, relation)
    assert len(spec.required) == (count if len(spec.objects) == 1 else 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a dog",
        "red circle",
        "two red circle",
        "one red circles",
        "five red circles",
        "a red circle above a square",
        "a red circle and a red circle",
        "a circle and a red circle",
        "a red circle and a blue square and a green triangle",
    ],
)
def test_text_outside_the_grammar_is_refused_with_help(text):
    with pytest.raises(ValueError, match="Write for example"):
        parse(text)


def test_size_of_the_split():
    pairs = list(itertools.combinations(NOUNS, 2))
    held = [pair for pair in pairs if picture_is_heldout(pair)]
    assert len(held) == 30
    misses = [sum(noun in pair for pair in held) for noun in NOUNS]
    assert set(misses) == {3, 4}
    counted = [is_heldout(CaptionSpec("counting", (noun,), count=n)) for noun in NOUNS for n in (2, 3, 4)]
    assert sum(counted) == 13
    assert {shape for _, shape in HELDOUT_LONE} == set(SHAPES)


def test_a_pair_is_held_out_for_every_relation_and_order():
    for first, second in itertools.permutations(NOUNS, 2):
        held = picture_is_heldout((first, second))
        assert is_heldout(CaptionSpec("color_attr", (first, second))) == held
        assert is_heldout(CaptionSpec("position", (second, first), "above")) == held


def test_pre_training_never_sees_a_held_out_caption_or_picture():
    rng = np.random.default_rng(3)
    for _ in range(6000):
        scene = sample_scene(rng)
        assert not is_heldout(scene.spec)
        assert not picture_is_heldout([obj.kind for obj in scene.objects])
        assert not is_heldout(sample_caption(scene, rng))


def test_resampled_captions_are_true():
    rng = np.random.default_rng(4)
    for _ in range(1500):
        scene = sample_scene(rng)
        true = true_captions(scene)
        assert scene.spec in true
        assert sample_caption(scene, rng) in true


def test_a_spec_without_colours_never_shows_a_held_out_picture():
    rng = np.random.default_rng(5)
    for text in ("a triangle", "a circle and a square", "a red circle and a square"):
        for _ in range(200):
            assert not picture_is_heldout([obj.kind for obj in sample_scene(rng, parse(text)).objects])


def test_a_held_out_spec_can_be_drawn_on_request():
    scene = sample_scene(np.random.default_rng(6), parse("a yellow circle"))
    assert [str(obj.kind) for obj in scene.objects] == ["yellow circle"]


def test_every_category_is_sampled():
    rng = np.random.default_rng(7)
    assert {sample_spec(rng).category for _ in range(400)} == set(CATEGORIES)


def test_relations_follow_the_dominant_axis():
    assert relation_of(-0.3, 0.1) == "left of"
    assert relation_of(0.1, -0.3) == "above"
    assert relation_of(0.3, 0.29) == ""


def test_prompt_files_are_the_committed_ones(repository):
    for name, heldout in (("train", False), ("heldout", True)):
        lines = (repository / "assets" / "prompts" / f"shapes-{name}.txt").read_text().splitlines()
        prompts = [line for line in lines if not line.startswith("#")]
        assert prompts == choose(heldout)
        assert len(set(prompts)) == len(prompts) >= 160
        assert all(is_heldout(parse(prompt)) == heldout for prompt in prompts)


@pytest.mark.parametrize("heldout", [False, True])
def test_any_prefix_of_the_prompts_is_balanced(heldout):
    prompts = choose(heldout)
    share = {c: sum(parse(p).category == c for p in prompts) / len(prompts) for c in CATEGORIES}
    for size in (32, 64, 100):
        for category in CATEGORIES:
            found = sum(parse(prompt).category == category for prompt in prompts[:size])
            assert abs(found - size * share[category]) <= 1.5
