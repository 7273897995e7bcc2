"""Whatever a person types where a path is wanted ends in a sentence, not in a traceback."""

import json
import os

import pytest

from trainers.cli import main
from trainers.errors import InputError
from trainers.paths import path_of

LONG = "./" + "x" * 300
UNUSABLE = {
    "long": (LONG, "name too long"),
    "nobody's": ("~nosuchuser-of-rsm/x", "home directory"),
    "null": ("a\0b", "null"),
}


@pytest.mark.parametrize(("text", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_text_that_names_no_path_is_told(text, words):
    with pytest.raises(InputError, match=f"(?i)is no path that can be used here: .*{words}.*\\.$") as caught:
        path_of(text)
    assert len(str(caught.value)) < 250


def test_a_path_need_not_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("")
    assert path_of("~/new") == tmp_path / "new"
    assert path_of(str(tmp_path / "file" / "below")) == tmp_path / "file" / "below"


@pytest.mark.parametrize("text", [LONG, "~nosuchuser-of-rsm/x"], ids=["long", "nobody's"])
@pytest.mark.parametrize(
    "words",
    [
        ("train", "--dry-run", "--prompts"),
        ("train", "--dry-run", "--set", "heldout_prompts="),
        ("train", "--dry-run", "--model"),
        ("train", "--dry-run", "--from-adapter"),
        ("train", "--dry-run", "--config"),
        ("train", "--out"),
        ("resume",),
        ("evaluate",),
    ],
    ids=" ".join,
)
def test_every_word_of_the_shell_that_is_a_path_is_checked(words, text, capsys):
    words = [*words[:-1], words[-1] + text] if words[-1].endswith("=") else [*words, text]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "is no path that can be used here" in told and told.count("\n") == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"prompts": 5},
        {"heldout_prompts": ["a"]},
        {"model": 5},
        {"model": ["tiny-flow"]},
        {"estimator": {"a": 1}},
        {"reward": 5},
        {"start_adapter": 5, "seed": 10**400},
    ],
    ids=str,
)
def test_a_file_of_settings_with_other_types_is_told(settings, tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings))
    words = ["train", "--config", str(path), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("Error: ")
    assert not os.path.exists(tmp_path / "run" / "config.json")
