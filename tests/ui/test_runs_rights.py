"""What the server of the runs page refuses, whatever a browser sends."""

import itertools
import json
import zipfile

import pytest

from tests.faults.many_runs import finished_run, make_finished_runs
from tests.ui.visitor import Visitor

FOREIGN = "belongs to somebody else"
_NUMBERS = itertools.count(0, 4)  # of runs that have succeeded


@pytest.fixture(scope="module")
def visitor(server):
    return Visitor(server.url)


@pytest.fixture
def foreign(store):
    return finished_run(store, next(_NUMBERS), lambda run: run.change_job(owner="someone-else"))


@pytest.fixture
def own(store):
    return finished_run(store, next(_NUMBERS), lambda run: run.change_job(owner="127.0.0.1"))


def looks_at(run):
    return {"chosen": run.id}


@pytest.mark.parametrize(
    ("event", "more"),
    [("stop", ()), ("resume", ()), ("pin", ("Pin",)), ("export", ()), ("ask", ())],
)
def test_another_owner_s_run_is_neither_changed_nor_exported(visitor, foreign, event, more):
    before = foreign.job()
    shown = visitor.send(event, looks_at(foreign), *more)
    assert FOREIGN in shown["runs-notice"]
    assert foreign.exists() and foreign.job() == before
    assert shown["runs-save"]["visible"] is False and shown["runs-confirm"]["visible"] is False


@pytest.mark.parametrize("event", ["stop", "export", "ask"])
def test_of_a_run_that_is_not_shared_not_even_the_owner_is_told(visitor, foreign, event):
    foreign.change_job(shared=False)
    before = foreign.job()
    assert "no longer exists" in visitor.notice(event, looks_at(foreign))
    assert foreign.exists() and foreign.job() == before


def test_deleting_needs_the_question_and_the_right_owner(visitor, own):
    assert "no longer exists" in visitor.notice("delete", looks_at(own), None) and own.exists()
    asked = visitor.send("ask", looks_at(own))
    assert own.id in asked["runs-question"] and "its settings" in asked["runs-question"]
    own.change_job(owner="someone-else")
    assert FOREIGN in visitor.notice("delete", looks_at(own), None) and own.exists()
    own.change_job(owner="127.0.0.1")
    visitor.send("ask", looks_at(own))
    assert "was deleted" in visitor.notice("delete", looks_at(own), None)
    assert not own.path.exists()


def test_a_waiting_and_a_pinned_run_are_not_deleted(visitor, own):
    settings = own.settings() | {"device": "cuda:99"}  # so that the queue leaves it where it is
    own.folder.config.write_text(json.dumps(settings))
    visitor.send("ask", looks_at(own))
    own.change_job(ticket=10**6)
    try:
        assert "Take it out of the queue" in visitor.notice("delete", looks_at(own), None)
    finally:
        own.change_job(ticket=0)
    visitor.send("ask", looks_at(own))
    own.change_job(pinned=True)
    assert "Unpin it" in visitor.notice("delete", looks_at(own), None)
    own.change_job(pinned=False)
    assert visitor.notice("pin", looks_at(own), "Pin") == "" and own.job().pinned
    assert "Unpin it" in visitor.notice("ask", looks_at(own))
    assert visitor.notice("pin", looks_at(own), "Unpin") == "" and not own.job().pinned
    assert own.exists()


def test_an_export_lies_in_gradio_s_cache_and_nowhere_in_the_run(visitor, own, server):
    held = sorted(own.path.rglob("*"))
    file = visitor.send("export", looks_at(own))["runs-save"]["value"]
    assert file["orig_name"] == f"{own.id}.zip" and not file["path"].startswith(str(server.runs))
    with zipfile.ZipFile(file["path"]) as archive:
        assert f"{own.id}/metrics.jsonl" in archive.namelist()
    assert sorted(set(own.path.rglob("*")) - {own.path / ".lock"}) == held


@pytest.mark.parametrize(
    "view",
    [None, 7, [], "x", {"page": -3}, {"page": 10**9}, {"page": "x"}, {"group": "nope"}, {"text": 5},
     {"text": "x" * 10**5}, {"chosen": "../../etc"}, {"chosen": {"a": 1}}, {"group": []}],
)  # fmt: skip
def test_a_view_that_is_none_is_shown_as_the_usual_list(visitor, store, view):
    make_finished_runs(store, 1) if not store.names() else None
    for event, more in (("poll", ()), ("follow", ()), ("older", ()), ("narrow", ("", "all")), ("keep", ())):
        shown = visitor.send(event, view, *more)
        assert "Traceback" not in str(shown) and {"runs-summary", "runs-table"} <= set(shown)


def test_an_event_on_no_run_is_answered_with_a_sentence(visitor):
    for event, more in (("stop", ()), ("resume", ()), ("pin", ("Pin",)), ("export", ()), ("ask", ())):
        assert "no longer exists" in visitor.notice(event, {"chosen": "20200101-000000-aaaaaa"}, *more)
        assert "no longer exists" in visitor.notice(event, {}, *more)
