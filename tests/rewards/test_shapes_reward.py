import numpy as np
import pytest
import torch

from trainers.config import RunConfig
from trainers.rewards import load_reward, unscorable
from trainers.shapes.grammar import parse
from trainers.shapes.render import render
from trainers.shapes.scenes import sample_scene

PROMPTS = ["a red circle", "three green triangles", "a red square left of a blue circle", "a circle"]


def drawn(prompts):
    rng = np.random.default_rng(0)
    scenes = [render(sample_scene(rng, parse(prompt))) for prompt in prompts]
    return torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).float() / 255


def test_a_picture_of_its_caption_earns_everything():
    images = drawn(PROMPTS)
    assert load_reward("shapes")(images, PROMPTS).tolist() == pytest.approx([1, 1, 1, 1])
    assert load_reward("shapes_exact")(images, PROMPTS).tolist() == [1, 1, 1, 1]


def test_a_half_right_picture_earns_part_of_the_credit_but_is_not_exact():
    images = drawn(["a red circle"])
    (partial,) = load_reward("shapes")(images, ["a blue circle"]).tolist()
    assert 0 < partial < 1
    assert load_reward("shapes_exact")(images, ["a blue circle"]).tolist() == [0]


def test_prompts_outside_the_grammar_are_refused_in_sentences():
    assert unscorable("shapes", PROMPTS, RunConfig()) == []
    found = unscorable("shapes", [*PROMPTS, "an astronaut", "", "two", "five red dogs", "x"], RunConfig())
    assert "an astronaut" in found[0]
    assert len(found) == 4 and found[-1].startswith("2 more prompts")
