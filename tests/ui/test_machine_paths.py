"""No visitor is told a folder of this machine: in no title, answer to a program, sentence or log."""

import json

import gradio as gr
import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import default_store
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import api, machine_paths, shell
from rsm_app.ui.access import owners_of
from rsm_app.ui.choices import finished_choices
from rsm_app.ui.history import View, listing
from rsm_app.ui.machine_paths import without_paths
from rsm_app.ui.run_table import summary_html
from tests.faults.many_runs import finished_run
from tests.ui.asking import asker
from tests.ui.test_unshared import EVENTS, answer
from trainers.errors import FaultError
from trainers.run_folder import write_json, write_lines

VISITOR, AT_IT = asker("203.0.113.7", host="192.0.2.9:7860"), asker()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder of the operator; that of the runs has a space in its name."""
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    monkeypatch.setenv("RSM_RUNS_DIR", str(tmp_path / "operator's own" / "runs"))
    machine_paths._folders.cache_clear()
    yield tmp_path / "operator" / "studio"
    machine_paths._folders.cache_clear()


@pytest.fixture
def supervisor(machine):
    made = Supervisor(default_store(), Limits(free_mb=0))
    yield made
    made.close()


@pytest.fixture
def run(supervisor, machine):
    """A run that was made in a shell from files of the machine, and failed with a path in its last word."""
    made = finished_run(supervisor.store, 3)
    for path in (made.job_file, made.request):
        path.unlink()
    settings = json.loads(made.folder.config.read_text())
    settings |= {
        "model": str(machine / "models" / "my-sd15"),
        "prompts": str(machine / "mine.txt"),
        "heldout_prompts": str(machine / "held.txt"),
        "start_adapter": str(machine / "loras" / "first"),
        "reward": f"{machine}/rewards/mine.py:score",
        "others": f"shapes,{machine}/rewards/mine.py:other",
    }
    made.folder.config.write_text(json.dumps(settings))
    error = f"Could not write metrics.jsonl in {made.path}: No space left. See {machine}/log.txt."
    status = json.loads(made.folder.status_file.read_text())
    write_json(made.folder.status_file, status | {"state": "failed", "error": error, "message": error})
    made.folder.log.write_text(
        f"Loading {machine}/models/my-sd15/unet.\n/opt/python/lib/torch/x.py:3: warned\n"
    )
    write_json(made.folder.report, {"paired": {"mean_gain": 0.25}, "reward": settings["reward"]})
    write_lines(made.folder.pairs, [{"index": 0, "prompt": "a red circle", "before": "x", "after": "y"}])
    return made


@pytest.fixture
def handlers(supervisor):
    demo = shell.build(supervisor)
    found = {}
    for page, parts in demo.get_config_file()["page"].items():
        for number in parts["dependencies"]:
            found.setdefault((page, getattr(demo.fns[number].fn, "__name__", "")), demo.fns[number].fn)
    return found


def test_a_title_and_an_answer_to_a_program_name_a_folder_by_its_last_part(supervisor, run, machine):
    endpoints = api.Api(supervisor)
    told = [endpoints.run_status(VISITOR, run.id), *endpoints.list_runs(VISITOR)]
    assert [one["settings"]["model"] for one in told] == ["my-sd15", "my-sd15"]
    assert told[0]["settings"]["prompts"] == "mine.txt" and told[0]["settings"]["start_adapter"] == "first"
    assert told[0]["settings"]["others"] == "shapes,mine.py:other"
    assert told[0]["error"] == f"Could not write metrics.jsonl in {run.id}: No space left. See log.txt."
    assert finished_choices(supervisor, VISITOR)[0][0].startswith("my-sd15 · ")
    assert "operator" not in repr(told) + repr(finished_choices(supervisor, VISITOR))
    me = owners_of(VISITOR)
    assert listing(supervisor, View(text="my-sd15 mine.py"), me).found == 1
    assert listing(supervisor, View(text="operator"), me).found == 0, "nor can it be guessed by searching"


@pytest.mark.parametrize("page", EVENTS)
def test_no_event_of_a_page_tells_a_folder_of_the_machine(monkeypatch, handlers, run, page, machine):
    said = []
    for name in ("Warning", "Info"):
        monkeypatch.setattr(gr, name, said.append)
    changing = {"delete", "resume", "retry", "extend", "stop", "pin", "share", "publish", "export"}
    for name, values in EVENTS[page].items():
        if name in changing or name.startswith(("export", "warm")):
            continue
        said.append(answer(handlers[page, name], values, run.id, VISITOR))
    assert "my-sd15" in str(said) or page in ("compare", "publish")
    assert "operator" not in str(said) and str(machine) not in str(said)


def test_whoever_sits_at_the_machine_has_the_command_and_the_log_as_they_are(handlers, run, machine):
    def shown(name, who):
        return answer(handlers["", name], (run.id, "gain"), run.id, who)

    assert str(machine) in shown("fill_log", AT_IT) and "/opt/python/lib" in shown("fill_log", AT_IT)
    assert "/opt" not in shown("fill_log", VISITOR) and "my-sd15" not in shown("fill_details", VISITOR)


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("Could not write x.json in /srv/runs/2026-a: full.", "Could not write x.json in 2026-a: full."),
        ("The folder '/srv/ann/models/sd' is empty.", "The folder 'sd' is empty."),
        ("~/.cache/huggingface/hub and ~ann/x.txt", "hub and x.txt"),
        ('File "/usr/lib/python3/x.py", line 3', 'File "x.py", line 3'),
        ("in /srv/runs/a/. Try again.", "in a. Try again."),
        ("[/srv/a/b, /srv/c/d]", "[b, d]"),
        ("See https://huggingface.co/settings/tokens.", "See https://huggingface.co/settings/tokens."),
        ("http://127.0.0.1:7860/a/b?c=/d", "http://127.0.0.1:7860/a/b?c=/d"),
        *((text, text) for text in ("3 pictures/s and/or 1/2", "owner/name@rev or runs/first")),
        ("Mount it at /data.", "Mount it at /data."),
        ("No space left: cache:/srv/a/b", "No space left: cache:b"),
        ("See file:///srv/al/secret/x.", "See x."),
        ("file:/srv/al/x and file://localhost/srv/al/y", "x and y"),
        ("sqlite:////srv/a/b.db", "sqlite:b.db"),
        ("The folder '/mnt/my models/x/y' is empty.", "The folder 'y' is empty."),
        ('["/mnt/my models/x/", "/mnt/b c/d e"]', '["x", "d e"]'),
        ("don't use `~/my models/o'brien's`", "don't use `o'brien's`"),
        ("'cache:/mnt/my models/x' “/srv/a b/c”", "'x' “c”"),
        ("it's /srv/a/b and that's /srv/c/d", "it's b and that's d"),
        *(
            (text, text)
            for text in (
                "s3://bucket/a/b, hf://owner/name/x and git+ssh://git@host/a/b",
                "http://[::1]:7860/a/b, http://[::1]/a/b and 'https://a.example/b c/d'",
                "'owner/name', 'and/or', \"a/b c/d\" and '/runs' or '/compare'",
                "cuda:0/1, ratio 1:/2, 10:/x",
            )
        ),
        ("", ""),
    ],
)  # fmt: skip
def test_of_a_path_in_a_sentence_the_last_part_is_left(text, without):
    assert without_paths(text) == without


def test_a_fault_that_names_a_folder_is_told_without_it(supervisor, run, machine, monkeypatch):
    def full(*_):
        raise FaultError(f"Could not write job.json in {run.path}: No space left on device.")

    monkeypatch.setattr(supervisor, "stop", full)
    endpoint = api._spoken(api.Api(supervisor).stop_run)
    with pytest.raises(gr.Error) as error:
        endpoint(VISITOR, run.id)
    assert error.value.message == f"Could not write job.json in {run.id}: No space left on device."
    supervisor.trouble = f"The runs directory cannot be used: [Errno 13] '{supervisor.store.root}/.lock'."
    page = listing(supervisor, View(), owners_of(VISITOR))
    assert "operator" not in summary_html(page, supervisor.trouble)
