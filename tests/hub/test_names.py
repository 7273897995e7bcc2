"""Names of repositories and addresses, as people type and paste them."""

import pytest
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from rsm_app.hub.names import checked_name, parse_source, suggestions
from trainers.errors import InputError

HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    "text",
    ["", "name", "/", "ann/", "/x", "a/b/c", "ann/a b", "ann/a--b", "ann/.x", "ann/x.git", "ann/" + "x" * 97],
)
def test_a_name_that_the_hub_refuses_is_refused_before_it_is_asked(text):
    with pytest.raises(InputError) as caught:
        checked_name(text)
    assert "owner/name" in str(caught.value) or "For example" in str(caught.value)


def test_a_good_name_passes_unchanged():
    assert checked_name("  ann/tiny-flow_v1.2 ") == "ann/tiny-flow_v1.2"


@given(st.fixed_dictionaries({"model": st.text(), "reward": st.text(), "estimator": st.text()}), st.text())
def test_every_suggestion_is_a_valid_name(settings, owner):
    names = suggestions(settings, owner)
    assert names and len(set(names)) == len(names)
    for name in names:
        validate_repo_id(name)
        assert checked_name(name) == name


def test_taken_names_are_not_suggested():
    settings = {"model": "tiny-flow", "reward": "shapes:1,tiny_clip:0.2", "estimator": "grpo", "seed": 3}
    first = suggestions(settings, "ann")
    assert first[0] == "ann/tiny-flow-shapes-tiny-clip-lora"
    assert first[0] not in suggestions(settings, "ann", taken=first[:1])
    long = {"model": "m" * 200, "reward": "shapes"}
    for asked in (settings, long):
        taken = []
        for _ in range(20):
            taken += suggestions(asked, "ann", taken)[:1]
        assert len(set(taken)) == 20 and all(checked_name(name) == name for name in taken)


def test_a_function_in_a_file_is_suggested_without_its_folders(tmp_path):
    reward = f"shapes:1,{tmp_path}/secret place/mine.py:score:2"
    assert suggestions({"model": "tiny-flow", "reward": reward}, "ann")[0] == (
        "ann/tiny-flow-shapes-mine-score-lora"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann/x", ("ann/x", None)),
        ("ann/x@v1", ("ann/x", "v1")),
        (f"{HUB}/ann/x", ("ann/x", None)),
        (f"{HUB}/ann/x/", ("ann/x", None)),
        (f"{HUB}/ann/x/tree/abc123", ("ann/x", "abc123")),
        (f"{HUB}/ann/x/blob/main/README.md", ("ann/x", "main")),
        ("huggingface.co/ann/x", ("ann/x", None)),
        ("hf.co/ann/x", ("ann/x", None)),
        ("https://www.huggingface.co/ann/x?library=diffusers#usage", ("ann/x", None)),
        ("https://ann:hf_secret@huggingface.co/ann/x", ("ann/x", None)),
        (f"{HUB}/ann/x.git", ("ann/x", None)),
        (f"{HUB}/models/ann/x", ("ann/x", None)),
        (f"{HUB}/ann/x/tree/refs%2Fpr%2F1", ("ann/x", "refs/pr/1")),
        ("git@hf.co:ann/x.git", ("ann/x", None)),
        ("hf://ann/x@v1", ("ann/x", "v1")),
        ("hf://models/ann/x/file.safetensors", ("ann/x", None)),
        ("\u201cann/x\u201d,", ("ann/x", None)),
        ("\u200b ann/x@v1\ufeff\n", ("ann/x", "v1")),
        ("/ann/x/", ("ann/x", None)),
    ],
)
def test_a_pasted_address_names_the_repository(text, expected):
    assert parse_source(text, HUB) == expected


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/ann/x",
        f"{HUB}/datasets/ann/x",
        f"{HUB}/ann",
        "ann/x@../main",
        "ann/../x",
        "file:///etc/x/y",
        "https://huggingface.co@evil.example/ann/x",
        "git@evil.example:ann/x",
        "http://[bad/ann/x",
        "https://huggingface.co:99999/ann/x",
        "hf://datasets/ann/x",
        f"{HUB}/spaces/ann/x",
        "evil.example/huggingface.co/ann/x",
    ],
)
def test_an_address_of_something_else_is_refused(text):
    with pytest.raises(InputError):
        parse_source(text, HUB)


def test_an_address_of_the_hub_is_one_where_a_mirror_or_a_hub_of_one_s_own_is_asked():
    mirror, own = "https://hub.mirror.example", "http://127.0.0.1:9000/"
    assert parse_source(f"{HUB}/ann/x/tree/v1", mirror) == ("ann/x", "v1")
    assert parse_source("hub.mirror.example/ann/x", mirror) == ("ann/x", None)
    assert parse_source("127.0.0.1:9000/ann/x", own) == ("ann/x", None)
    with pytest.raises(InputError, match="on hub.mirror.example"):
        parse_source("https://other.example/ann/x", mirror)
