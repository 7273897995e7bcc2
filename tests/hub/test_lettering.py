"""Captions in the drawn pictures: each script is shown, or gives way to something that can be read."""

import io
import re
import warnings

import pytest
from PIL import Image, features

from rsm_app.hub import drawings, lettering
from rsm_app.hub.bundle import bundle
from rsm_app.hub.lettering import caption, label, shows, wrapped
from tests.e2e.shell import lines
from trainers.run_folder import write_lines

SHOWN = {
    "Latin": "naïve café — “quoted”",
    "Cyrillic": "красный круг",
    "Greek": "κόκκινος κύκλος",
    "Arabic": "دائرة حمراء على يسار مربع أزرق",
    "Hebrew": "עיגול אדום ליד ריבוע כחול",
    "both directions": "a red circle קטן and دائرة",
    "signs": "x → y × 2 ≤ √3",
    "mathematics of matplotlib": "$x^2$ \\frac{",
}
NUMBERED = {
    "Chinese": "红色的圆",
    "Japanese": "赤い丸と青い四角",
    "Korean": "빨간 원",
    "Hindi": "लाल वृत्त",
    "Thai": "วงกลมสีแดง",
    "mixed": "a red 円",
    "nothing": "",
    "blanks": " \t ",
}


@pytest.mark.parametrize("text", SHOWN.values(), ids=SHOWN)
def test_a_script_of_the_font_is_shown_as_it_is(text):
    if any(map(lettering._from_right, text)) and not features.check("raqm"):
        pytest.skip("Pillow cannot set this direction here")
    assert caption(text, 7) == text and shows(text)


@pytest.mark.parametrize("text", NUMBERED.values(), ids=NUMBERED)
def test_a_script_that_the_font_lacks_gives_way_to_a_number(text):
    assert caption(text, 7) == "Prompt 7" and not shows(text)


def test_emoji_are_named_and_what_only_changes_them_is_left_out():
    assert caption("a 🔴 and a 👩🏽 ❤️", 1) == "a [large red circle] and a [woman] ❤️"
    assert caption("🇩🇪", 1) == "[d][e]" and not shows("🇩🇪")
    assert caption("a\x1b[2J\ud800b", 1) == "a\ufffd[2J\ufffdb"


def test_right_to_left_needs_what_sets_it(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    assert caption(SHOWN["Arabic"], 2) == "Prompt 2" and caption(SHOWN["Greek"], 2) == SHOWN["Greek"]


@pytest.mark.parametrize(
    "text", [*SHOWN.values(), "x" * 400, "a " + "y" * 400, "many words of it " * 30, "1 2 3", "", "ü" * 90]
)
def test_lines_fit_their_width(text):
    found = wrapped(text, 15, 288)
    assert len(found) <= 2 and all(lettering.font(15).getlength(line) <= 288 for line in found)
    whole = " ".join(found)
    assert whole == " ".join(text.split()) or whole.endswith("…")


@pytest.mark.parametrize("text", [*SHOWN.values(), *NUMBERED.values(), "🔴", "\ud800", "\0"])
def test_every_script_is_drawn_without_a_complaint(run, text):
    (first, *_) = lines(run / "samples" / "pairs.jsonl")
    pictures = [run / first[side] for side in ("before", "after")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a glyph that is missing
        grid = Image.open(io.BytesIO(drawings.grid([(text, *pictures)] * 2)))
        curve = drawings.curve([{"step": n, "reward_mean": n} for n in (1, 2)], [], text)
    drawn = grid.crop((0, 152, grid.width // 2, grid.height)).convert("L")
    assert drawn.getextrema()[0] < 128, "something is written under the pair"
    assert Image.open(io.BytesIO(curve)).size[0] > 500


@pytest.mark.parametrize(
    ("text", "shown"), [("Bright × 2", True), ("赤い", False), ("אדום", False), ("$x$", True)]
)
def test_a_plot_s_label_is_plain_or_something_else(text, shown):
    assert label(text, "reward") == (text if shown else "reward")


def test_the_card_repeats_what_the_picture_cannot_show(run):
    pairs = lines(run / "samples" / "pairs.jsonl")
    texts = iter([*NUMBERED.values()][:6] + [*SHOWN.values()])
    names = {}
    for pair in pairs:
        pair["prompt"] = names.setdefault(pair["prompt"], next(texts, pair["prompt"]))
    write_lines(run / "samples" / "pairs.jsonl", pairs)
    card = bundle(run, "ann/x").card
    listed = card.partition("Prompts that the picture cannot show")[2].partition("## Use it")[0]
    told = re.findall(r"^(\d+)\. (.*)$", listed, re.MULTILINE)
    assert len(told) > 1 and [number for number, _ in told] == [str(1 + n) for n in range(len(told))]
    assert all(caption(text, int(number)) == f"Prompt {number}" for number, text in told)
