"""The typed endpoints, called by ``gradio_client`` as a program would, and by strangers."""

import base64
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import psutil
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from rsm_app.jobs import launching
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import compare, playground, shell
from rsm_app.ui.api import Api, build
from tests.faults.clients import Client as Tab
from tests.faults.clients import Notes, Page
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import SMALL, small_config, wait_for
from tests.ui.asking import asker
from trainers.errors import InputError

QUICK = {"reward": "colorfulness", "budget_seconds": 900, "settings": SMALL | {"max_updates": 1}}


@pytest.fixture(scope="module")
def client(server):
    return Client(server.url, verbose=False)


def call(client, name, **values):
    return client.predict(api_name=f"/{name}", **values)


def test_only_the_five_are_public(client):
    found = client.view_api(return_format="dict")
    assert set(found["named_endpoints"]) == {
        f"/{name}" for name in ("start_run", "run_status", "list_runs", "stop_run", "sample")
    }
    assert not found["unnamed_endpoints"]


def test_a_program_starts_watches_lists_and_samples_a_run(client):
    started = call(client, "start_run", seed=3, prompts="a red circle\na blue square", **QUICK)
    assert started["state"] in ("queued", "running")
    run = started["run"]
    told = wait_for(lambda: (now := call(client, "run_status", run=run))["state"] == "succeeded" and now)
    assert told["settings"]["seed"] == 3
    assert told["paired"]["n"] == 8
    assert told["error"] == ""
    assert [row["run"] for row in call(client, "list_runs", state="succeeded", limit=1)] == [run]
    drawn = call(client, "sample", run=run, prompt="a green triangle", seed=5)
    before, after = (picture(drawn[side]) for side in ("before", "after"))
    assert before.size == after.size == (64, 64)
    assert before.tobytes() != after.tobytes()
    same = call(client, "sample", run=run, prompt="a green triangle", seed=5, strength=0.0)
    assert same["before"] == same["after"] == drawn["before"]


def picture(url):
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_program_stops_a_run(client):
    endless = QUICK | {"settings": SMALL | {"max_updates": 0}}
    run = call(client, "start_run", **endless)["run"]
    wait_for(lambda: call(client, "run_status", run=run)["phase"] == "train")
    assert call(client, "stop_run", run=run)["state"] in ("stopping", "stopped")
    wait_for(lambda: call(client, "run_status", run=run)["state"] == "stopped")


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("start_run", {"model": "tiny"}, "Did you mean"),
        ("start_run", {"model": "/etc"}, "Unknown model '/etc'"),
        ("start_run", {"model": "owner/model"}, "Unknown model 'owner/model'"),
        ("start_run", {"budget_seconds": -1}, "'budget_seconds' must be between"),
        ("start_run", {"settings": {"kl_weigth": 1}}, "Unknown setting 'kl_weigth'"),
        ("start_run", {"settings": {"seed": 1}}, "Give seed by name of the call"),
        ("start_run", {"settings": {"heldout_prompts": "/etc/passwd"}}, "must be a built-in set"),
        ("start_run", {"prompts": "\n \n"}, "'prompts'"),
        ("start_run", {"estimator": "pcpo"}, "is defined for diffusion models"),
        ("run_status", {"run": "../../etc"}, "There is no run with this id"),
        ("list_runs", {"state": "asleep"}, "'state' must be one of"),
        ("list_runs", {"limit": 0}, "'limit' must be a whole number"),
        ("stop_run", {"run": "none"}, "There is no run with this id"),
        ("sample", {"run": "none", "prompt": "a red circle"}, "There is no run with this id"),
    ],
)
def test_wrong_input_is_a_sentence(client, name, values, sentence):
    with pytest.raises(AppError, match=sentence):
        call(client, name, **values)


# -- whose run it is ---------------------------------------------------------------------------------


OWNER, STRANGER = asker("10.0.0.1"), asker("10.0.0.2")


@pytest.fixture
def api(tmp_path, monkeypatch):
    """The endpoints over a queue where nothing starts."""
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0))
    monkeypatch.setattr(supervisor, "tick", lambda: None)
    yield Api(supervisor)
    supervisor.close()


def test_a_stranger_neither_sees_nor_stops_nor_samples_a_run(api):
    run = api.supervisor.submit(small_config(), None, "10.0.0.1").id
    assert [row["run"] for row in api.list_runs(OWNER)] == [run]
    assert api.list_runs(STRANGER) == []
    for ask in (
        lambda: api.run_status(STRANGER, run),
        lambda: api.stop_run(STRANGER, run),
        lambda: api.sample(STRANGER, run, "a red circle"),
    ):
        with pytest.raises(InputError, match="no run with this id"):
            ask()
    assert api.run_status(OWNER, run)["queue_position"] == 1


def test_drawings_wait_for_each_other_in_the_queue_and_not_in_a_thread(api):
    """Whoever waits for a device inside a thread takes it from those who start, stop and look at runs."""
    with gr.Blocks() as demo:
        build(api.supervisor)
        compare.build(demo, api.supervisor)
    drawing = [event for event in demo.fns.values() if event.api_name in ("sample", "draw")]
    assert {event.api_name for event in drawing} == {"sample", "draw"}
    assert {(event.concurrency_id, event.concurrency_limit) for event in drawing} == {("playground", 1)}
    assert all(event.queue is not False for event in drawing)


def test_the_playground_makes_room_for_a_worker_that_the_app_starts(api, monkeypatch):
    monkeypatch.setattr(launching, "_make_room", [])
    shell.build(api.supervisor)
    assert launching._make_room == [playground.make_room]


def test_a_shared_run_may_be_looked_at_but_not_stopped(api):
    run = api.supervisor.submit(small_config(), None, "10.0.0.1").id
    api.supervisor.share(run)
    assert api.run_status(STRANGER, run)["state"] == "queued"
    assert [row["run"] for row in api.list_runs(STRANGER)] == [run]
    with pytest.raises(InputError, match="belongs to somebody else"):
        api.stop_run(STRANGER, run)
    api.supervisor.share(run, False)
    assert api.list_runs(STRANGER) == []


def test_without_a_time_budget_the_usual_one_of_the_model_counts(api):
    assert api.start_run(OWNER)["settings"]["budget_seconds"] == 90.0
    assert api.start_run(OWNER, budget_seconds=120)["settings"]["budget_seconds"] == 120.0
    api.supervisor.limits = Limits(free_mb=0, run_seconds=60)
    assert api.start_run(OWNER)["settings"]["budget_seconds"] == 60.0


def test_a_large_model_s_usual_time_budget_is_its_own(api, monkeypatch):
    """Neither a GPU nor its weights are here, so what would be queued is looked at instead."""
    asked = []

    def submit(config, *_):
        asked.append(config.budget_seconds)
        raise InputError("Not here.")

    monkeypatch.setattr("rsm_app.ui.api.require_model", lambda name: None)
    monkeypatch.setattr(api.supervisor, "submit", submit)
    for budget in (None, 90):
        with pytest.raises(InputError, match="Not here"):
            api.start_run(OWNER, model="sd35-medium", reward="colorfulness", budget_seconds=budget)
    assert asked == [3600.0, 90.0]


def test_a_run_from_a_shell_is_everybody_s(api):
    run = api.supervisor.submit(small_config(), None, "").id
    assert api.run_status(STRANGER, run)["run"] == run
    assert api.stop_run(STRANGER, run)["state"] == "stopped"


def test_a_visitor_s_hostile_runs_break_no_list_and_stop_no_poll(server, store, client):
    """60 MB of metrics, half a surrogate pair in the settings and a bomb of a status, all of them shared."""

    def spoil(run):
        settings = json.loads(run.folder.config.read_text()) | {"judge_question": "\ud800\n```\n\x1b]0;x\x07"}
        run.folder.config.write_text(json.dumps(settings))
        run.folder.metrics.write_bytes(b"{}\n" * 20_000_000)

    plain, evil = finished_run(store, 900), finished_run(store, 901, spoil)
    nested = b'{"paired": ' + b"[" * 400_000
    bomb = finished_run(store, 902, lambda run: run.folder.report.write_bytes(nested))
    process = psutil.Process(server.process.pid)
    page, before = Page.read(server.url, server.port), process.memory_info().rss
    visitors = [Tab(page, Notes(), 0.0, number) for number in range(4)]
    runs = [evil.id, plain.id, bomb.id, evil.id]

    def look(visitor, run):
        return [visitor._direct("poll", [run, ""]), visitor._call("due", [run])]

    with ThreadPoolExecutor(4) as pool:
        looked = [pool.submit(look, *pair) for pair in zip(visitors, runs, strict=True)]
        listed = {row["run"] for row in call(client, "list_runs")}
        shown = [future.result(120)[0][0] for future in looked]
    assert {plain.id, evil.id, bomb.id} <= listed
    assert all(run in html for run, html in zip(runs, shown, strict=True))
    assert process.memory_info().rss - before < 300 * 2**20
    for run in (plain, evil, bomb):
        shutil.rmtree(run.path)
