"""Prompts longer than a model reads: told once over the whole set, then refused, cut or left out as set."""

import dataclasses

import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import preflight, watch
from tests.e2e.shell import read, trainers
from tests.faults.sessions import session, tiny_config
from trainers.cautions import cautions
from trainers.cli import main
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.long_prompts import used_prompts
from trainers.models import EMBEDDED, MODELS
from trainers.models.families import FAMILIES
from trainers.preflight import prompt_problems
from trainers.prompts import read_prompts
from trainers.run_folder import RunFolder

SHORT = ["a red circle", "two blue squares", "a green triangle"]
LONG = "a red circle left of a blue square and a green triangle above two yellow circles"


def config(path, **changes):
    return RunConfig(reward="brightness", prompts=str(path), **changes)


@pytest.fixture
def mixed(tmp_path):
    """A set of nine with three that are too long, on lines that a remark and a blank line move."""
    path = tmp_path / "set.txt"
    path.write_text("# circles\n\n" + "".join(f"{text}\n" for text in [*SHORT, LONG] * 2 + [f"{LONG} again"]))
    return path


def test_they_are_refused_in_one_sentence_with_count_lines_and_limit(mixed):
    with pytest.raises(InputError) as caught:
        used_prompts(config(mixed), "prompts")
    (told,) = caught.value.problems
    assert told.startswith("3 of the 9 training prompts have more than the 12 tokens that 'Tiny Flow' reads")
    assert "; lines 6, 10, 11)" in told and "set long_prompts to cut or to skip" in told
    assert prompt_problems(config(mixed))["prompts"] == [told]


def test_they_are_left_out_or_drawn_from_their_beginning(mixed):
    skip, cut = (config(mixed, long_prompts=way) for way in ("skip", "cut"))
    assert used_prompts(skip, "prompts") == SHORT * 2 and used_prompts(cut, "prompts")[3] == LONG
    assert len(used_prompts(cut, "prompts")) == 9
    assert cautions(skip)["long_prompts"].endswith("they are left out.")
    assert cautions(cut)["long_prompts"].endswith("from the first 12.")
    held = {tuple(used_prompts(each, "heldout_prompts")) for each in (skip, cut, config(mixed))}
    assert len(held) == 1 and "long_heldout_prompts" not in cautions(skip)
    assert prompt_problems(skip)["prompts"] == prompt_problems(cut)["prompts"] == []


def test_held_out_ones_are_counted_apart_and_a_reward_is_asked_only_about_what_is_used(mixed, tmp_path):
    held = tmp_path / "held.csv"
    held.write_text(f"n,prompt\n1,{SHORT[0]}\n2,{LONG} in the rain\n")
    settings = config("shapes-train", heldout_prompts=str(held), long_prompts="skip")
    assert used_prompts(settings, "heldout_prompts") == SHORT[:1]
    note = cautions(settings)["long_heldout_prompts"]
    assert f"line 3: '{LONG[:20]}" in note and "1 of the 2 held-out prompts has" in note
    strict = dataclasses.replace(settings, reward="shapes")
    assert prompt_problems(strict)["heldout_prompts"] == []
    assert "as a shapes caption" in str(prompt_problems(dataclasses.replace(strict, long_prompts="cut")))


def test_a_set_of_nothing_else_is_refused_even_if_they_may_be_left_out(tmp_path):
    (tmp_path / "set.json").write_text(f'["{LONG}", "{LONG}, again"]')
    with pytest.raises(InputError, match="entries 1, 2.* None is left; set long_prompts to cut"):
        used_prompts(config(tmp_path / "set.json", long_prompts="skip"), "prompts")


def test_many_are_named_by_the_first_of_them(tmp_path):
    (tmp_path / "set.txt").write_text(f"{LONG}\n" * 40)
    note = cautions(config(tmp_path / "set.txt", long_prompts="cut"))["long_prompts"]
    assert "40 of the 40" in note and "lines 1, 2, 3, 4, 5 …" in note and len(note) < 250


def test_checkpoints_cut_as_every_call_of_theirs_does_and_the_embedded_ones_refuse():
    assert all(family.defaults["long_prompts"] == "cut" for family in FAMILIES.values())
    assert all("long_prompts" not in MODELS.get(name).defaults for name in EMBEDDED)


def test_a_dry_run_says_it_and_prints_the_settings_alone(mixed, capsys):
    words = ["train", "--dry-run", "--reward", "brightness", "--prompts", str(mixed)]
    assert main(words) == 2 and "3 of the 9 training prompts" in capsys.readouterr().err
    assert main([*words, "--set", "long_prompts=skip"]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("Note: 3 of the 9 training prompts") and told.out.startswith("{")


def test_log_and_report_and_page_say_it_once(mixed, tmp_path):
    path = tmp_path / "run"
    settings = tiny_config(prompts=str(mixed), long_prompts="skip", max_updates=1)
    assert session(path, settings).run().state == "succeeded"
    (note,) = (text for text in read(path / "report.json")["notes"] if "training prompts" in text)
    assert note.startswith("3 of the 9") and note.endswith("they are left out.")
    assert (path / "log.txt").read_text().count(note) == 1
    folder = RunFolder(path)
    assert watch._signs_of(folder.path).count("3 of the 9 training prompts") == 1
    again = trainers("evaluate", str(path), "--prompts", str(mixed), "--samples", "1")
    assert again.returncode == 0, again.stderr


def test_the_page_says_it_before_the_start(mixed, tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0))
    try:
        settings = RunConfig(reward="brightness", long_prompts="cut")
        html = preflight.preflight_html(supervisor, settings, mixed.read_text())
        assert "3 of the 9 training prompts" in html and "drawn from the first 12" in html
        assert "tokens" not in preflight.preflight_html(supervisor, settings)
    finally:
        supervisor.close()
    own = read_prompts(mixed.read_text(), "The pasted text")
    assert "3 of the 9" in prompt_problems(RunConfig(reward="brightness"), own)["prompts"][0]
