"""OCR accuracy: the distance, the reading of maps and of characters, and what the networks are given."""

import numpy as np
import pytest
import torch

from trainers.config import RunConfig
from trainers.rewards import REWARDS, load_reward
from trainers.rewards.ocr import TOGETHER, accuracy, decode, edit_distance, quoted, text_boxes


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("abc", "abc", 0),
        ("ab", "ba", 2),
    ],
)
def test_edit_distance(one, other, distance):
    assert edit_distance(one, other) == edit_distance(other, one) == distance


@pytest.mark.parametrize(
    ("read", "score"),
    [
        ("OPEN", 1.0),
        ("now o p e n", 1.0),
        ("opon", 0.75),
        ("", 0.0),
        ("something quite else", 0.0),
        ("pen", 0.75),
    ],
)
def test_accuracy_forgives_case_spaces_and_surroundings(read, score):
    assert accuracy(quoted('a sign that says "Open"'), read) == score


def test_the_first_quoted_text_counts_and_prompts_without_one_are_told():
    assert quoted('a “Red Fox” and a "blue" one') == "redfox"
    assert quoted('an empty ""') == ""
    found = REWARDS.get("ocr").unscorable(['a "b"', *["no text"] * 5], RunConfig())
    assert len(found) == 4 and "double quotes" in found[0] and found[-1].startswith("2 more")


def test_characters_are_read_without_blanks_and_repetitions():
    characters = ["", "a", "b"]
    path = [0, 1, 1, 0, 1, 2, 2, 0, 0]
    assert decode(torch.eye(3)[path], characters) == "aab"


def region(top, left, bottom, right, value=0.9, shape=(64, 64)):
    where = np.zeros(shape, np.float32)
    where[top:bottom, left:right] = value
    return where


def test_boxes_are_grown_scaled_and_cut_at_the_border():
    grow = 8 * 20 * 1.5 / (2 * (8 + 20))
    (box,) = text_boxes(region(20, 10, 28, 30), 128, 64)
    expected = (10 - grow, 2 * (20 - grow), 30 + grow, 2 * (28 + grow))
    assert box == tuple(round(side) for side in expected)
    assert text_boxes(region(0, 0, 8, 64), 64, 64)[0][:3] == (0, 0, 64)


def test_faint_and_tiny_regions_are_no_text():
    assert text_boxes(region(10, 10, 20, 40, value=0.5), 64, 64) == []
    assert text_boxes(region(10, 10, 12, 40), 64, 64) == []


def test_lines_are_read_from_top_to_bottom_and_left_to_right():
    where = region(40, 5, 46, 20) + region(41, 40, 47, 60) + region(5, 30, 12, 60)
    tops = [(left, top) for left, top, _, _ in text_boxes(where, 64, 64)]
    assert tops[0][1] < tops[1][1] and tops[1][0] < tops[2][0]


def test_what_the_reader_reads_is_what_is_scored(monkeypatch):
    """The detector's map is replaced by a known one; cropping, resizing, the reader and decoding are real."""
    reward = load_reward("ocr").parts[0].reward
    seen = []
    where = torch.tensor(region(10, 10, 30, 50))

    class Map:
        last_hidden_state = where[None, None].expand(2, 1, 64, 64)

    monkeypatch.setattr(reward.reader.finder, "forward", lambda pixel_values: Map)
    reward.reader.reader.register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state))
    texts = reward.reader.read(torch.rand(2, 3, 64, 64))
    assert len(seen) == 2 and texts == [decode(scores[0], reward.reader.characters) for scores in seen]


def test_long_and_short_lines_fit_the_reader():
    from trainers.rewards.ocr import _for_reader

    assert _for_reader(torch.rand(3, 20, 30)).shape == (1, 3, 48, 320)
    assert _for_reader(torch.rand(3, 10, 200)).shape == (1, 3, 48, 960)
    assert _for_reader(torch.rand(3, 2, 999)).shape == (1, 3, 48, 3200)


def test_few_pictures_are_looked_at_at_once_and_each_as_if_alone():
    reader = load_reward("ocr").parts[0].reward.reader
    seen = []
    handle = reader.finder.register_forward_pre_hook(
        lambda module, words, named: seen.append(len(named["pixel_values"])), with_kwargs=True
    )
    images = torch.rand(TOGETHER + 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = list(reader.read(images))
    handle.remove()
    assert seen == [TOGETHER, 3]
    assert found == [reader.read(image[None])[0] for image in images]
