"""GenEval: prompts are read back, pictures judged as the benchmark does, and the detector's answer turned
into boxes.
"""

import json

import pytest
import torch
from torch.nn import functional as F

from tests.rewards.checkpoints import write_detector
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError
from trainers.prompts import load_prompts
from trainers.rewards import load_reward, unscorable
from trainers.rewards.geneval import GenEval, correct, credit, relations
from trainers.rewards.geneval_prompts import COLORS, OBJECTS, Request, Thing, read_request
from trainers.rewards.objects import TOGETHER, Found, _best, _objects, read_finder

PROMPTS = [
    ("a photo of a bench", Request((Thing("bench"),))),
    ("a photo of an orange", Request((Thing("orange"),))),
    ("a photo of an orange tv remote", Request((Thing("tv remote", color="orange"),))),
    ("a photo of a bus and an elephant", Request((Thing("bus"), Thing("elephant")))),
    ("a photo of three buses", Request((Thing("bus", 3),), counting=True)),
    (
        "a photo of a white dog and a purple potted plant",
        Request((Thing("dog", color="white"), Thing("potted plant", color="purple"))),
    ),
    (
        "a photo of a dog right of a teddy bear",
        Request((Thing("teddy bear"), Thing("dog", position="right of"))),
    ),
]


@pytest.mark.parametrize(("prompt", "request_"), PROMPTS)
def test_prompts_are_read_back(prompt, request_):
    assert read_request(prompt) == request_


@pytest.mark.parametrize("prompt", ["a dog", "a photo of dragons", "a photo of a", "", "a photo of two dog"])
def test_other_prompts_are_told(prompt):
    assert read_request(prompt) is None


def test_metadata_of_the_benchmark_comes_first():
    record = {
        "tag": "position",
        "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 2, "position": ["above", 0]}],
    }
    expected = Request((Thing("cat"), Thing("dog", 2, position="above")))
    assert read_request("dogs above a cat", record) == expected
    for wrong in ({"class": "dragon"}, {"class": "cat", "count": "x"}, {"count": 1}, "cat"):
        assert read_request("anything", {"include": [wrong]}) is None


def found(name, box=(0, 0, 10, 10), score=0.95):
    return Found(name, score, box, torch.ones(4, 4, dtype=torch.bool))


def named(*colors):
    return lambda objects: list(colors)[: len(objects)]


DOGS = [found("dog"), found("dog"), found("dog")]


@pytest.mark.parametrize(
    ("objects", "share", "right"),
    [
        (DOGS[:2], 1.0, True),
        (DOGS, 0.5, False),
        (DOGS[:1], 0.5, False),
        ([], 0.0, False),
        (DOGS * 2, 0.0, False),
    ],
)
def test_counts(objects, share, right):
    request = read_request("a photo of two dogs")
    assert (credit(request, objects, named()), correct(request, objects, named())) == (share, right)


def test_counting_needs_surer_objects_than_the_rest():
    unsure = [found("dog", score=0.8), found("dog", score=0.8)]
    assert credit(read_request("a photo of two dogs"), unsure, named()) == 0.0
    assert correct(read_request("a photo of a dog"), unsure, named())
    assert credit(read_request("a photo of a dog"), unsure, named()) == 0.0  # one too many costs here


def test_colours_count_only_for_the_right_number():
    request = read_request("a photo of a red car and a blue bench")
    both = [found("car"), found("bench")]
    colors = {"car": "red", "bench": "green"}
    credit_of = credit(request, both, lambda objects: [colors[each.name] for each in objects])
    assert credit_of == pytest.approx(3 / 4)
    colors["bench"] = "blue"
    assert correct(request, both, lambda objects: [colors[each.name] for each in objects])
    assert credit(request, both[:1], lambda objects: ["red"]) == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    ("box", "names"),
    [
        ((0, 40, 10, 50), {"left of"}),
        ((90, 40, 100, 50), {"right of"}),
        ((45, 0, 55, 10), {"above"}),
        ((45, 90, 55, 100), {"below"}),
        ((0, 0, 10, 10), {"left of", "above"}),
        ((46, 41, 56, 51), set()),
    ],
)
def test_positions(box, names):
    assert relations(box, (45, 40, 55, 50)) == names


def test_positions_earn_a_part_of_their_own():
    request = read_request("a photo of a dog above a bench")
    bench, dog = found("bench", (40, 60, 60, 80)), found("dog", (40, 0, 60, 20))
    assert credit(request, [bench, dog], named()) == 1.0 and correct(request, [bench, dog], named())
    below = found("dog", (40, 90, 60, 110))
    assert credit(request, [bench, below], named()) == pytest.approx(2 / 3)
    assert not correct(request, [bench, below], named())
    assert credit(request, [dog], named()) == pytest.approx(1 / 3)


def test_the_detector_s_answer_becomes_objects():
    logits = torch.full((3, 81), -20.0)
    logits[0, 16], logits[1, 80], logits[2, 2] = 20.0, 20.0, 20.0  # a dog, nothing, a car
    scores, queries, classes = _best(logits)
    assert sorted(queries.tolist()) == [0, 2] and {OBJECTS[i] for i in classes.tolist()} == {"dog", "car"}
    masks = torch.full((2, 8, 8), -9.0)
    masks[0, 2:5, 1:7] = 9.0
    order = queries.argsort()
    (dog,) = _objects(scores[order], classes[order], masks)  # the car's mask is empty
    assert (dog.name, dog.box) == ("dog", (1, 2, 7, 5)) and dog.score == pytest.approx(1.0, abs=1e-3)


def test_colours_are_named_by_the_likeliest_direction(published):
    """Pictures are stand-ins for their embedding: the names are those of a nearest direction over three
    sentences.
    """
    reward = load_reward("geneval").parts[0].reward
    towers, sentences = (
        reward.towers,
        ("a photo of a {} car", "a photo of a {}-colored car", "a photo of a {} object"),
    )
    image = torch.rand(3, 40, 40)
    whole = Found("car", 0.9, (4, 8, 30, 36), torch.ones(40, 40, dtype=torch.bool))
    (name,) = reward._colors(image, [whole])
    look = towers.pictures(image[None, :, 8:36, 4:30])[0]
    fits = [
        F.normalize(towers.captions([text.format(color) for text in sentences]).mean(0), dim=0) @ look
        for color in COLORS
    ]
    assert name == COLORS[int(torch.stack(fits).argmax())]


def test_what_a_mask_leaves_out_does_not_change_a_colour():
    reward = load_reward("geneval").parts[0].reward
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8:24, 8:24] = True
    seen = []
    image = torch.rand(3, 32, 32)
    other = torch.where(mask, image, torch.rand(3, 32, 32))
    real = reward.towers.pictures
    reward.towers.pictures = lambda x: seen.append(x) or real(x)
    for picture in (image, other):
        reward._colors(picture, [Found("car", 0.9, (4, 4, 28, 28), mask)])
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize("size", [(64, 64), (64, 97), (150, 64)])
def test_pictures_of_any_shape_are_padded_and_masks_have_their_size(published, size):
    reward = load_reward("geneval").parts[0].reward
    pixels, mask = reward.finder._pixels(torch.rand(2, 3, *size))
    assert all(side % 32 == 0 for side in pixels.shape[-2:]) and pixels.shape[-2:] == mask.shape[-2:]
    logits = torch.full((2, 6, 81), -20.0)
    logits[:, :, 16] = 20.0

    class Output:
        class_queries_logits = logits
        masks_queries_logits = torch.ones(2, 6, pixels.shape[2] // 4, pixels.shape[3] // 4)

    real, reward.finder.model = reward.finder.model, torch.nn.Linear(1, 1)
    reward.finder.model.forward = lambda **_: Output
    (first, _) = reward.finder.find(torch.rand(2, 3, *size))
    reward.finder.model = real
    assert len(first) == 6 and all(each.mask.shape == size for each in first)
    assert first[0].box == (0, 0, size[1], size[0])


def test_json_lines_carry_metadata_to_the_reward(tmp_path):
    own = tmp_path / "own.jsonl"
    record = {"prompt": "dogs, please", "tag": "counting", "include": [{"class": "dog", "count": 2}]}
    own.write_text(json.dumps(record) + "\n\n" + json.dumps({"prompt": "a photo of a cat"}) + "\n")
    assert load_prompts(str(own)) == ["dogs, please", "a photo of a cat"]
    config = RunConfig(prompts=str(own))
    reward = load_reward("geneval", config=config).parts[0].reward
    assert isinstance(reward, GenEval) and reward.records["dogs, please"] == record
    assert unscorable("geneval", ["dogs, please"], config) == []
    assert "dogs, please" in unscorable("geneval", ["dogs, please"], RunConfig())[0]
    for line in ("nonsense", "[1]", '{"tag": "x"}\n{}', '{"prompt": 3}\n{"prompt": "x"}'):
        own.write_text(f"{line}\n")
        with pytest.raises(InputError, match="(Line|Entry) 1 of .* is not a JSON object"):
            load_prompts(str(own))


def test_a_detector_of_other_classes_is_refused(tmp_path):
    write_detector(tmp_path, classes=5)
    with pytest.raises(FaultError, match="5 classes"):
        read_finder(tmp_path, "cpu")


def test_few_pictures_are_looked_at_at_once_and_each_as_if_alone():
    finder = load_reward("geneval").parts[0].reward.finder
    seen = []
    handle = finder.model.register_forward_pre_hook(
        lambda module, words, named: seen.append(len(named["pixel_values"])), with_kwargs=True
    )
    images = torch.rand(TOGETHER + 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = list(finder.find(images))
    handle.remove()
    assert seen == [TOGETHER, 3]
    assert [[each.name for each in one] for one in found] == [
        [each.name for each in next(finder.find(image[None]))] for image in images
    ]
