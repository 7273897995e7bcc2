"""Own prompts that the reward or the model cannot use are told before anything is queued."""

import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.own_prompts import own_prompts
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import field_problems, fields, form
from rsm_app.ui.api import Api
from tests.ui.asking import asker
from trainers.coercion import from_mapping
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.preflight import prompt_problems
from trainers.prompt_files import PromptRow, read_text
from trainers.prompts import prompt_records

CAT = "a photo of a cat"


def filled(**changes) -> form.Form:
    """Return the newcomer's form with pasted prompts, and other changes."""
    config = form.newcomer_config()
    advanced = dict(zip(fields.ADVANCED, fields.values_of(config), strict=True))
    advanced |= {name: changes.pop(name) for name in [*changes] if name in advanced}
    values = {
        "model": config.model, "reward": config.reward, "mixture": "", "estimator": config.estimator,
        "prompt_source": form.PASTE, "prompt_set": config.prompts, "pasted": "a red circle", "upload": None,
        "budget": "90", "custom_seconds": None, "seed": 0,
    }  # fmt: skip
    return form.Form(**values | changes, advanced=tuple(advanced.values()))


def test_what_the_reward_cannot_score_is_told_at_the_prompts():
    with pytest.raises(field_problems.FormError) as told:
        form.check(filled(pasted=f"a red circle\n{CAT}"))
    ((sentence, place),) = told.value.found.items()
    assert place == field_problems.PROMPTS and f"Cannot read '{CAT}'" in sentence
    config, text = form.check(filled(pasted=CAT, reward="brightness"))
    assert config.reward == "brightness" and text == f"{CAT}\n"


def test_what_the_model_would_cut_off_is_told_at_the_prompts():
    with pytest.raises(field_problems.FormError) as told:
        form.check(filled(pasted=f"{CAT} on a mat in the sun", reward="brightness"))
    ((sentence, place),) = told.value.found.items()
    assert place == field_problems.PROMPTS and "would cut off the rest" in sentence


def test_held_out_prompts_are_told_at_their_own_section():
    with pytest.raises(field_problems.FormError) as told:
        form.check(filled(heldout_prompts="general-heldout"))
    assert set(told.value.found.values()) == {fields.group_of("heldout_prompts")}


UPLOADS = {
    "drawbench.csv": 'Prompts,Category\n"a red circle",Shapes\n"two blue squares",Counting\n',
    "parti.TSV": "Prompt\tCategory\na red circle\tShapes\ntwo blue squares\tCounting\n",
    "set.json": '[{"prompt": "a red circle", "n": 1}, {"prompt": "two blue squares", "n": 2}]',
    "set.JSONL": '{"prompt": "a red circle"}\n{"prompt": "two blue squares"}\n',
    "set.txt": "# mine\r\na red circle\r\ntwo blue squares\r\n",
}


@pytest.mark.parametrize("name", UPLOADS)
def test_uploads_and_pastes_of_every_form_become_prompts_and_nothing_else(name, tmp_path):
    path = tmp_path / name
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(UPLOADS[name].encode(encoding))
        _, text = form.check(filled(prompt_source=form.FILE, upload=str(path)))
        rows = read_text(text, "kept")
        assert [row.prompt for row in rows] == ["a red circle", "two blue squares"], encoding
    if not name.endswith(".csv"):  # which pasted text may be is not certain
        _, text = form.check(filled(pasted=UPLOADS[name]))
        assert [row.prompt for row in read_text(text, "kept")] == ["a red circle", "two blue squares"]


def test_what_a_file_says_beside_its_prompts_reaches_the_run_and_the_form_again(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0))
    try:
        config, text = form.check(filled(pasted=UPLOADS["set.json"]))
        monkeypatch.setattr(supervisor, "tick", lambda: None)  # it need not be trained
        run = supervisor.submit(config, text, "ann")
        assert prompt_records(from_mapping(run.settings()))["two blue squares"]["n"] == 2
        assert own_prompts(run) == text and form.check(filled(pasted=own_prompts(run)))[1] == text
    finally:
        supervisor.close()


def test_prompts_that_only_their_records_explain_can_be_scored():
    asked = '{"prompt": "dogs, please", "tag": "counting", "include": [{"class": "dog", "count": 2}]}'
    rows = read_text(asked, "an upload")
    config = RunConfig(model="sd15", reward="geneval", heldout_prompts="geneval-heldout")
    assert prompt_problems(config, rows)["prompts"] == []
    assert "is not a GenEval prompt" in prompt_problems(config, [PromptRow("dogs, please", 1)])["prompts"][0]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("set.csv", b"id,kind\n1,x\n", "set.csv names 'id', 'kind', and no column of prompts"),
        ("set.parquet", b"PAR1", "set.parquet cannot be read here; prompts are read from text"),
        ("set.txt", b"a caf\xe9", "is not UTF-8 text: line 1"),
        ("set.json", b"[1]", "Entry 1 of set.json is not a JSON object"),
    ],
)
def test_other_uploads_are_refused_below_the_prompts_without_a_path(name, content, sentence, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(field_problems.FormError) as told:
        form.check(filled(prompt_source=form.FILE, upload=str(tmp_path / name)))
    ((found, place),) = told.value.found.items()
    assert sentence in found and place == field_problems.PROMPTS and str(tmp_path) not in found


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    """Whatever has put it there; one that is as large as it may be is read."""
    huge, most = tmp_path / "huge.txt", tmp_path / "most.txt"
    with huge.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk, and more memory than there is
    sent = filled(prompt_source=form.FILE, upload=str(huge))
    assert form.prompt_count(sent) == 0
    with pytest.raises(field_problems.FormError) as refused:
        form.check(sent)
    ((found, place),) = refused.value.found.items()
    assert found == "huge.txt is larger than 1 MB; use fewer prompts." and place == field_problems.PROMPTS
    line = "a red circle\n"
    most.write_text(line * (form.MAX_UPLOAD_BYTES // len(line)))
    assert form.check(filled(prompt_source=form.FILE, upload=str(most)))[1].startswith(line)


def test_the_page_takes_every_form_that_it_reads():
    assert {".csv", ".tsv", ".json", ".jsonl", ".txt"} <= set(form.UPLOADS) and ".parquet" not in form.UPLOADS


def test_programs_are_told_and_nothing_is_queued(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0))
    try:
        with pytest.raises(InputError, match=f"Cannot read '{CAT}'"):
            Api(supervisor).start_run(asker(), prompts=f"a red circle\n{CAT}")
        with pytest.raises(InputError, match="as a shapes caption"):
            Api(supervisor).start_run(asker(), settings={"heldout_prompts": "general-heldout"})
        assert supervisor.store.runs() == []
    finally:
        supervisor.close()
