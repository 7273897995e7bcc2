"""The card's metadata means the same to readers of YAML 1.1 and 1.2, and no text in it can end the block."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from rsm_app.hub.bundle import bundle
from rsm_app.hub.front_matter import front_matter
from tests.e2e.shell import lines
from tests.hub.card_rules import metadata_errors
from trainers.run_folder import write_lines

LIKE_NUMBERS = [
    "2e5",
    "1.5e3",
    "0o17",
    "12e03",
    "7e-2",
    "+.5",
    "1.",
    ".inf",
    "-.INF",
    ".nan",
    "0x1F",
    "017",
    "1_000",
]
# The core schema of YAML 1.2, as its specification words it (10.3.2).
NUMBER_1_2 = re.compile(
    r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN"
)


def plain_scalars(block: str) -> list[str]:
    """Return every value of a block that is written without quotes."""
    return [
        event.value
        for event in yaml.parse(block)
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0]
    ]


@pytest.mark.parametrize("text", LIKE_NUMBERS)
def test_a_text_that_looks_like_a_number_is_quoted(text):
    block = front_matter({"name": text, "count": 3})
    assert not [value for value in plain_scalars(block) if value == text and NUMBER_1_2.fullmatch(value)]
    assert yaml.safe_load(block.strip("-\n")) == {"name": text, "count": 3}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_and_stays_inside_the_block(text):
    block = front_matter({"name": text, "list": [{"text": text}], "end": 1})
    assert ModelCard(f"{block}\n# page\n").data.to_dict() == {
        "name": text,
        "list": [{"text": text}],
        "end": 1,
    }
    assert [line for line in block.split("\n") if line.startswith("---")] == ["---", "---"]


def test_prompts_and_names_like_numbers_stay_texts_on_the_card(run):
    pairs = lines(run / "samples" / "pairs.jsonl")
    names = {}
    for pair in pairs:
        pair["prompt"] = names.setdefault(pair["prompt"], LIKE_NUMBERS[len(names)])
    write_lines(run / "samples" / "pairs.jsonl", pairs)
    card = bundle(run, "ann/2e5").card
    assert metadata_errors(card) == []
    data = ModelCard(card).data.to_dict()
    assert data["model-index"][0]["name"] == "2e5"
    assert [shown["text"] for shown in data["widget"]] == LIKE_NUMBERS[: len(data["widget"])]
    block = re.match(r"---\n(.*?)\n---", card, re.DOTALL)[1]
    assert "2e5" not in plain_scalars(block) and "1.5e3" not in plain_scalars(block)
