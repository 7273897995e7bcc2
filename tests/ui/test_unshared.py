"""To a stranger a run that is not shared and one that never was are the same, whatever is asked."""

import contextlib
import shutil
from types import SimpleNamespace

import gradio as gr
import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import shell, watch
from rsm_app.ui.api import Api
from tests.faults.many_runs import finished_run
from tests.ui.asking import asker
from trainers.errors import StudioError
from trainers.run_folder import write_json, write_lines

STRANGER = asker("10.0.0.2")
INDEX = SimpleNamespace(index=0)
# Every event of a page that takes a run, with what a page sends beside it.
EVENTS = {
    "": {
        **{name: ("RUN",) for name in ("stop", "resume", "extend", "retry", "export_adapter")},
        **{name: ("RUN",) for name in ("export_report", "due", "duplicate")},
        "attach": ("RUN", ""),
        "poll": ("RUN", ""),
        "select_pair": ("RUN", "gain", INDEX),
        **{f"fill_{name}": ("RUN", "gain") for name in watch.PARTS},
    },
    "compare": {
        "show_run": ("RUN", "gain", "all"),
        "arrange": ("RUN", "gain", "all"),
        "show_more": ("RUN", "gain", "all", []),
        "choose_pair": ("RUN", [0], INDEX),
        "to_playground": ("RUN", 0),
        "contest": (["RUN", "RUN"],),
        "axis": (["RUN", "RUN"], "step"),
        "warm_up": ("RUN",),
    },
    "runs": {
        **{
            name: ({"chosen": "RUN"}, {})
            for name in ("poll", "follow", "stop", "resume", "export", "ask", "keep", "close", "load")
        },
        "pin": ({"chosen": "RUN"}, {}, "Pin"),
        "share": ({"chosen": "RUN"}, {}, "Share"),
        "delete": ({"chosen": "RUN"}, {}, "RUN"),
        "choose": ({}, {}, SimpleNamespace(_data={"run": "RUN"})),
    },
    "publish": {
        "show": ("RUN", ["", []]),
        "cancel": ("RUN",),
        "follow": ("RUN",),
        "poll": ("RUN", ""),
        "retry": ("RUN", "hf_x", None),
        "publish": ("RUN", "a/b", "public", "hf_x", ["RUN", "a/b", "public", "x"], None),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSM_DEVICES", "cpu")
        made = Supervisor(RunStore(tmp_path_factory.mktemp("app") / "runs"), Limits(free_mb=0))
        patch.setattr(made, "tick", lambda: None)
        yield made
        made.close()


@pytest.fixture(scope="module")
def handlers(supervisor):
    """Every handler, by its page and its name."""
    demo = shell.build(supervisor)
    found = {}
    for page, parts in demo.get_config_file()["page"].items():
        for number in parts["dependencies"]:
            event = demo.fns[number]
            found.setdefault((page, getattr(event.fn, "__name__", "")), event.fn)
    return found


@pytest.fixture
def run(supervisor):
    """A finished run with everything that a page could show, which its owner does not share."""
    made = finished_run(supervisor.store, 0)
    made.change_job(owner="10.0.0.1", shared=False)
    write_json(made.folder.report, {"paired": {"mean_gain": 0.25}, "reward": "colorfulness"})
    write_lines(made.folder.pairs, [{"index": 0, "prompt": "a red circle", "before": "x", "after": "y"}])
    made.folder.adapter.mkdir()
    yield made
    shutil.rmtree(made.path, ignore_errors=True)


def filled(value, run_id):
    """What a page sends, with a run's id in it."""
    if isinstance(value, SimpleNamespace):
        return SimpleNamespace(**{name: filled(part, run_id) for name, part in vars(value).items()})
    if isinstance(value, dict):
        return {name: filled(part, run_id) for name, part in value.items()}
    if isinstance(value, list):
        return [filled(part, run_id) for part in value]
    return run_id if value == "RUN" else value


def answer(handler, values, run_id, who=STRANGER):
    """What a handler answers, in words."""
    returned = handler(*(filled(value, run_id) for value in values), who)
    if hasattr(returned, "send"):  # a coroutine that never waits
        with pytest.raises(StopIteration) as ended:
            returned.send(None)
        returned = ended.value.value
    return repr(returned)


@pytest.mark.parametrize("page", EVENTS)
def test_no_event_tells_a_run_that_is_not_shared_from_one_that_is_missing(monkeypatch, handlers, run, page):
    said = []
    for name in ("Warning", "Info"):
        monkeypatch.setattr(gr, name, said.append)
    asked = {name: (handlers[page, name], values) for name, values in EVENTS[page].items()}
    hidden = {name: answer(*event, run.id) for name, event in asked.items()}
    told, said[:] = list(said), []
    mine = {name: answer(*event, run.id, asker("10.0.0.1")) for name, event in asked.items() if name in SHOWS}
    said.clear()
    shutil.rmtree(run.path)
    missing = {name: answer(*event, run.id) for name, event in asked.items()}
    different = {name for name in hidden if hidden[name] != missing[name]}
    assert not different and said == told
    assert all(mine[name] != hidden[name] for name in mine), "to its owner it is shown"


SHOWS = ("fill_outcome", "show_run", "poll", "show")


def test_no_endpoint_tells_them_apart_either(supervisor, run):
    api = Api(supervisor)

    def said(call, **values):
        with pytest.raises(StudioError) as error:
            call(STRANGER, **values)
        return str(error.value)

    def all_said():
        yield said(api.run_status, run=run.id)
        yield said(api.stop_run, run=run.id)
        yield said(api.sample, run=run.id, prompt="a red circle")
        yield said(api.start_run, settings={"start_adapter": run.id})
        yield said(api.start_run, settings={"start_adapter": str(run.path)})
        with contextlib.suppress(StudioError):
            yield repr(api.list_runs(STRANGER))

    hidden = list(all_said())
    shutil.rmtree(run.path)
    supervisor.index.rows(scan=True)
    assert list(all_said()) == hidden and len(hidden) == 6


def test_every_event_that_takes_a_run_is_asked_here(handlers):
    """Whoever adds one adds it above, or says here that it takes none, or asks the Hub or an engine first."""
    others = {
        *("", "_proxy_notice", "<lambda>", "choose", "preview", "check_reward", "start"),
        *("point_out", "narrow", "newer", "older", "offer", "take_up", "bring", "greet", "check", "draw"),
        *("start_run", "run_status", "list_runs", "stop_run", "sample", "_check_login_status", "forget"),
    }
    named = {(page, name) for page, name in handlers if page != "lab" and name not in others}
    listed = {(page, name) for page, events in EVENTS.items() for name in events if name not in others}
    assert named - listed == {("compare", "attach"), ("compare", "poll"), ("publish", "attach")}
