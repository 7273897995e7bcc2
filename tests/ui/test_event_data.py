"""What a page sends of a click or a choice may be missing or anything; no event fails on it."""

import itertools

import gradio as gr
import pytest
from gradio.events import EventData
from gradio.state_holder import SessionState
from PIL import Image

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import shell
from rsm_app.ui.event_data import Selected
from rsm_app.ui.pictures import MISSING
from tests.faults.many_runs import finished_run
from tests.ui.asking import asker, run_apart
from trainers.run_folder import picture_name, write_json, write_lines

SENT = [
    *(None, "", "0", 0, 7, True, [], [0], ["index"], {}, {"index": None}, {"value": "x"}),
    *({"index": "0"}, {"index": [0, 1]}, {"index": -1}, {"index": -100}, {"index": 10**30}, {"index": True}),
    *(
        {"index": 0.5},
        {"index": {}},
        {"run": None},
        {"run": 7},
        {"run": ["x"]},
        {"run": "../x"},
        {"run": "x" * 10**5},
    ),
]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The pages, with a run that has pairs to choose from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSM_DEVICES", "cpu")
        supervisor = Supervisor(RunStore(tmp_path_factory.mktemp("app") / "runs"), Limits(free_mb=0))
        run = finished_run(supervisor.store, 0)
        run.change_job(owner="127.0.0.1")
        write_json(run.folder.report, {"paired": {"mean_gain": 0.25}, "reward": "colorfulness"})
        pairs = [{"index": n, "prompt": f"prompt {n}"} for n in range(3)]
        for pair, side in itertools.product(pairs, ("before", "after")):
            pair[side] = picture_name(side, pair["index"])
            (run.path / pair[side]).parent.mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), "red").save(run.path / pair[side])
        (run.path / pairs[1]["after"]).unlink()
        write_lines(run.folder.pairs, pairs)
        yield shell.build(supervisor), run
        supervisor.close()


def heard(demo, event, values, data):
    """What an event answers, called as Gradio's queue calls it."""
    state = SessionState(demo)
    for component, value in zip(event.inputs, values, strict=True):
        if isinstance(component, gr.State):
            state[component._id] = value
    asked = {"request": asker(), "state": state, "event_data": EventData(None, data)}
    return run_apart(demo.process_api(event, values, in_event_listener=True, **asked))["data"]


def choices(demo, run):
    """Every event that reads what was clicked or chosen, with what its page sends beside it."""
    sent = {
        "select_pair": [run.id, "gain"],
        "choose_pair": [run.id, [0, 1, 2]],
        "choose": [{}, {}],
    }
    return {
        event.fn.__name__: (event, sent[event.fn.__name__])
        for event in demo.fns.values()
        if event.collects_event_data
    }


def test_every_event_that_reads_a_choice_is_known_here(app):
    assert len(choices(*app)) == 3


@pytest.mark.parametrize("data", SENT, ids=lambda data: repr(data)[:20])
def test_a_choice_that_is_none_fails_nowhere_and_changes_nothing(app, data):
    demo, run = app
    for name, (event, values) in choices(demo, run).items():
        answer = heard(demo, event, values, data)
        assert name == "choose" or "prompt" not in repr(answer), (name, answer)


def test_a_choice_is_answered(app):
    demo, run = app
    for name, (event, values) in choices(demo, run).items():
        answer = heard(demo, event, values, {"index": 2, "value": "x", "run": run.id})
        assert name == "choose" or "prompt 2" in repr(answer), (name, answer)
        assert name != "choose" or run.id in repr(answer)


def test_a_choice_whose_picture_is_gone_is_answered_in_a_sentence(app):
    demo, run = app
    for name, (event, values) in choices(demo, run).items():
        answer = heard(demo, event, values, {"index": 1, "value": "x"})
        assert name == "choose" or MISSING in repr(answer), (name, answer)


def test_an_item_has_a_number_from_0():
    assert [Selected(None, {"index": number}).index for number in (0, 5, -1, None, 1.0, "1")] == [
        0,
        5,
        *[None] * 4,
    ]
