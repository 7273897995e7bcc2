"""Two visitors of a Space whose GPU is lent by the minute: each starts a run, and each gets its result."""

import json
import os
import re

import pytest
from playwright.sync_api import expect

from rsm_app.jobs.store import RunStore
from tests.jobs.small_runs import end_workers, wait_for
from tests.ui.conftest import watch
from tests.ui.server import ROOT, Server
from tests.ui.steps import PATIENCE_MS, expect_result, expect_state, fill_small, open_page, press_start

# Gradio asks the Hub and a server of fonts for things on a Space; where there is no network it does without.
_OUTSIDE = re.compile(r"(failed|\d+): https://|console: (Failed to load resource|Space not found)")
UPDATES = {"ann": 100, "bob": 6}
VISITORS = {"ann": "10.0.0.1", "bob": "10.0.0.2"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("zero")


@pytest.fixture(scope="module")
def server(place):
    own = {
        "SYSTEM": "spaces",
        "SPACE_ID": "ann/studio",
        "SPACE_HOST": "127.0.0.1",
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "SPACES_ZERO_GPU": "true",
        "RSM_DEVICES": "",
        "LOANS": str(place / "loans.jsonl"),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "zero_gpu"), str(ROOT)]),
    }
    running = Server(place / "runs", environment=own).start().wait()
    yield running
    running.stop()
    end_workers(RunStore(running.runs))


@pytest.fixture
def pages(browser, server, troubles):
    """A page for each visitor, as the Space's proxy lets them through."""
    contexts = {
        name: browser.new_context(extra_http_headers={"x-forwarded-for": address, "x-ip-token": name})
        for name, address in VISITORS.items()
    }
    opened = {}
    for name, context in contexts.items():
        context.set_default_timeout(PATIENCE_MS)
        context.on("page", lambda page: watch(page, troubles))
        opened[name] = context.new_page()
        open_page(opened[name], server.url)
    yield opened
    for context in contexts.values():
        context.close()
    left = [t for t in troubles if not _OUTSIDE.match(t)]
    assert not left, "\n".join(left)


def test_two_visitors_share_the_lent_gpu_one_after_the_other(pages, store, place):
    ann, bob = pages["ann"], pages["bob"]
    fill_small(
        ann, max_updates=UPDATES["ann"], eval_prompts=4
    )  # long enough for the other to be seen waiting
    fill_small(bob, max_updates=UPDATES["bob"], eval_prompts=4)
    ann.locator("#start").click()
    first = wait_for(lambda: next(iter(store.names()), None), what="the first run")
    second = press_start(bob)  # at once: nobody waits for Ann's page to show her run
    expect_state(bob, "queued")
    expect(bob.locator("#run-status .rsm-message")).to_contain_text("Position 1 of 1 in the queue")
    assert store.run(first).status().state != "queued"
    expect_state(ann, "succeeded")
    expect_result(ann)
    expect_state(bob, "succeeded")
    expect_result(bob)
    assert sorted(store.names()) == sorted([first, second])
    owners = {name: store.run(run).job().owner for name, run in (("ann", first), ("bob", second))}
    assert owners == VISITORS
    assert all(store.run(run).worker().device == "cuda:0" for run in (first, second))
    done = [store.run(run).folder.read_report()["updates"] for run in (first, second)]
    assert done == list(UPDATES.values())
    loans = [json.loads(line) for line in (place / "loans.jsonl").read_text().splitlines()]
    assert [loan["visitor"] for loan in loans] == sorted(loan["visitor"] for loan in loans)
    assert {loan["visitor"] for loan in loans} == set(VISITORS), "each one's time counts as theirs"
    assert {loan["ended"] for loan in loans} == {"returned"}
