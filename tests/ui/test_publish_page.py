"""The publish page on a finished run of the real engine, against the stand-in for the Hub."""

import json
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from rsm_app.hub.push_status import PushStatus, read_push, write_push
from rsm_app.jobs.store import RunStore
from tests.e2e.shell import lines, settings, trainers
from tests.hub.conftest import environment
from tests.hub.stand_in import StandIn
from tests.hub.stored import USERS
from tests.jobs.small_runs import end_workers, wait_for
from tests.ui.server import Server
from tests.ui.steps import expect_accessible, expect_fits
from tests.ui.visitor import Visitor
from trainers.adapter_file import WEIGHTS
from trainers.run_folder import write_lines

RUN, OTHER = "20260101-000000-aaaaaa", "20260102-000000-bbbbbb"
CANARY = "hf_PAGEcanaryQz81LmVx"
COMMIT, BATCH, OBJECT = "POST /api/models/.*/commit", "objects/batch", "PUT /_objects"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    running = StandIn(tmp_path_factory.mktemp("hub"))
    running.store.users[CANARY] = USERS["hf_annWrites"]
    yield running
    running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, hub):
    """The app of somebody who never signed in on this machine."""
    place = tmp_path_factory.mktemp("app")
    known = environment(hub, place / "home", HF_TOKEN="", GRADIO_TEMP_DIR=str(place / "gradio"))
    running = Server(place / "runs", environment=known).start().wait()
    yield running
    running.stop()
    end_workers(RunStore(running.runs))


@pytest.fixture(scope="module")
def run(store):
    words = ["train", "--reward", "brightness", "--budget-seconds", "600", "--out", str(store.root / RUN)]
    done = trainers(*words, *settings(eval_prompts=4, max_updates=1, learning_rate=5e-3))
    assert done.returncode == 0, done.stderr[-2000:]
    return store.run(RUN)


@pytest.fixture(autouse=True)
def sound(hub):
    """A Hub without faults, before and after."""
    hub.fail()
    yield
    hub.fail()


def open_publish(page, server, run_id=RUN):
    page.goto(f"{server.url}/publish?run={run_id}")
    expect(page.locator("#publish-card .rsm-card")).to_be_visible()
    expect(page.locator("#publish-status section")).to_be_visible()


def check(page, repo=None, token=CANARY):
    if repo:
        page.locator("#publish-repo input, #publish-repo textarea").fill(repo)
    page.locator("#publish-token input").fill(token)
    page.locator("#publish-check").click()
    expect(page.locator("#publish-target .rsm-target")).to_be_visible()


def publish(page, repo):
    check(page, repo)
    expect(page.locator("#publish-go")).to_be_enabled()
    page.locator("#publish-go").click()
    expect(page.locator("#publish-token input")).to_have_value("")


def expect_push(page, state):
    expect(page.locator(f"#publish-status [data-push='{state}']")).to_be_visible()


def test_without_a_finished_run_the_page_says_so_and_takes_up_one(page, server, request):
    page.goto(f"{server.url}/publish")
    expect(page.locator("#publish-told")).to_contain_text("Nothing to publish yet")
    expect(page.locator("#publish-page")).to_be_hidden()
    expect(page.get_by_text("Sign in with")).to_have_count(0)
    expect(page.locator("#publish-who")).to_contain_text("hf auth login")
    request.getfixturevalue("run")
    expect(page.locator("#publish-card .rsm-card")).to_be_visible()
    expect(page.locator("#publish-told")).not_to_contain_text("Nothing to publish")


def test_a_run_is_previewed_published_and_published_again_with_what_changed(page, server, hub, run):
    open_publish(page, server)
    page.wait_for_function(
        "[...document.querySelectorAll('#publish-card img')].filter(i => i.naturalWidth > 0).length >= 5"
    )
    expect(page.locator("#publish-go")).to_be_disabled()
    expect_push(page, "none")
    page.locator("#publish-check").click()
    expect(page.locator("#publish-problems")).to_contain_text("Nobody is signed in")
    check(page)
    repo = page.locator("#publish-repo input, #publish-repo textarea").input_value()
    assert repo.startswith("ann/tiny-flow-brightness")
    expect(page.locator("#publish-target")).to_contain_text("does not exist yet")
    page.get_by_role("tab", name="Files").click()
    expect(page.locator("#publish-files")).to_contain_text(WEIGHTS)
    page.locator("#publish-go").click()
    expect_push(page, "succeeded")
    expect(page.locator("#publish-token input")).to_have_value("")
    link = page.locator("#publish-status").get_by_role("link", name="Open it on the Hub")
    expect(link).to_have_attribute("href", f"{hub.url}/{repo}")
    assert hub.files(repo)[WEIGHTS] == (run.folder.adapter / WEIGHTS).read_bytes()
    page.reload()
    expect_push(page, "succeeded")
    expect(page.locator("#publish-go")).to_be_disabled()

    pairs = lines(run.folder.pairs)
    write_lines(run.folder.pairs, pairs[:-2])
    try:
        check(page)
        expect(page.locator("#publish-target")).to_contain_text("exists and stays public")
        expect(page.locator("#publish-target")).to_contain_text("2 removed")
        page.get_by_role("tab", name="Files").click()
        expect(page.locator("#publish-files tr", has_text="04-after.png")).to_contain_text("removed")
        expect(page.locator("#publish-files tr", has_text=WEIGHTS)).to_contain_text("as it is")
        page.locator("#publish-go").click()
        wait_for(lambda: "images/04-after.png" not in hub.files(repo), 60, "the new revision")
        expect_push(page, "succeeded")
    finally:
        write_lines(run.folder.pairs, pairs)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
@pytest.mark.parametrize("tab", ["Card", "Files"])
def test_a_checked_repository_is_shown_without_a_serious_accessibility_violation(
    page, server, run, scheme, width, tab
):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    open_publish(page, server)
    check(page, "ann/checked")
    page.get_by_role("tab", name=tab).click()
    page.wait_for_timeout(1000)  # a tab's colours fade
    expect_accessible(page)


def test_a_fault_tells_cause_and_remedy_and_a_new_try_goes_on(page, server, hub, run):
    open_publish(page, server)
    hub.fail({"match": COMMIT, "status": 403})
    publish(page, "ann/faulty")
    expect_push(page, "failed")
    told = page.locator("#publish-status .rsm-failure")
    expect(told).to_contain_text("may not write")
    expect(told).to_contain_text("role 'write'")
    assert run.status().state == "succeeded"
    hub.fail()
    page.locator("#publish-retry").click()
    expect(page.locator("#publish-problems")).to_contain_text("Nobody is signed in")
    sent = sum(line.startswith(OBJECT) for line in hub.lines())
    page.locator("#publish-token input").fill(CANARY)
    page.locator("#publish-retry").click()
    expect_push(page, "succeeded")
    assert sum(line.startswith(OBJECT) for line in hub.lines()) == sent, "what had arrived is not sent again"
    assert WEIGHTS in hub.files("ann/faulty")


def test_a_repository_that_moved_since_it_was_checked_is_looked_at_again(page, server, hub, run):
    open_publish(page, server)
    publish(page, "ann/moving")
    expect(page.locator("#publish-status [data-push='succeeded']")).to_contain_text("ann/moving")
    repo = hub.store.repos["ann/moving"]
    pairs = lines(run.folder.pairs)
    write_lines(run.folder.pairs, pairs[:-2])
    try:
        check(page, "ann/moving")
        expect(page.locator("#publish-go")).to_be_enabled()
        kept = repo["commits"][-1]["files"] | {"LICENSE": hub.store.keep(b"mine")}
        hub.store.commit(repo, kept, "by hand")
        page.locator("#publish-go").click()
        expect_push(page, "failed")
        expect(page.locator("#publish-status")).to_contain_text("has changed since it was checked")
        page.locator("#publish-token input").fill(CANARY)
        page.locator("#publish-retry").click()
        expect(page.locator("#publish-target")).to_contain_text("2 removed")
        assert len(repo["commits"]) == 3, "nothing was sent"
        page.locator("#publish-go").click()
        expect_push(page, "succeeded")
        assert hub.files("ann/moving")["LICENSE"] == b"mine"
    finally:
        write_lines(run.folder.pairs, pairs)


def test_a_name_that_another_run_here_has_taken_is_not_suggested(server, run, store):
    visitor = Visitor(server.url, "publish")

    def suggested():
        told = visitor._client._call("show", [OTHER, None])
        return dict(zip(visitor.outputs["show"], told, strict=True))["publish-repo"]

    other, before = store.root / OTHER, read_push(run.path)
    shutil.copytree(run.path, other, ignore=shutil.ignore_patterns("push*"))
    try:
        write_push(run.path, PushStatus())
        first = suggested()
        write_push(run.path, PushStatus(state="succeeded", repo=first))
        assert first == "your-name/tiny-flow-brightness-lora" and suggested() not in (first, "")
    finally:
        write_push(run.path, before)
        shutil.rmtree(other)


def test_a_push_that_waits_is_told_survives_a_reload_and_is_cancelled(page, server, hub, run):
    open_publish(page, server)
    hub.fail({"match": BATCH, "status": 429, "headers": {"Retry-After": "200"}})
    publish(page, "ann/waiting")
    expect_push(page, "waiting")
    expect(page.locator("#publish-status")).to_contain_text("Trying again in 200 s")
    page.reload()
    expect_push(page, "waiting")
    page.locator("#publish-cancel").click()
    expect_push(page, "cancelled")
    expect(page.locator("#publish-retry")).to_be_visible()
    expect(page.locator("#publish-cancel")).to_be_hidden()
    assert set(hub.files("ann/waiting")) == {".gitattributes"}


def test_nobody_publishes_the_run_of_another(server, hub, run):
    """Whatever a browser sends, and whether or not the run is shared."""
    visitor = Visitor(server.url, "publish")

    def send(event, *data):
        return dict(zip(visitor.outputs[event], visitor._client._call(event, list(data)), strict=True))

    before, asked = read_push(run.path), len(hub.lines())
    try:
        for shared, sentence in ((True, "belongs to somebody else"), (False, "no such run")):
            run.change_job(owner="someone-else", shared=shared)
            aim = (RUN, "ann/stolen", "public", CANARY)
            for event, data in (
                ("show", (RUN, None)),
                ("check", aim),
                ("publish", (*aim, None)),
                ("retry", (RUN, CANARY)),
                ("cancel", (RUN,)),
            ):
                assert sentence in send(event, *data)["publish-problems"], event
            assert send("poll", RUN, None)["publish-status"] == ""
        wait_for(lambda: run.id not in json.dumps(send("attach", None)), 30, "a list without it")
    finally:
        run.change_job(owner="", shared=False)
    assert read_push(run.path) == before and len(hub.lines()) == asked
    told = send("publish", RUN, "ann/unseen", "public", CANARY, None)["publish-problems"]
    assert "Check the repository first" in told and "ann/unseen" not in hub.store.repos


def test_a_published_lora_is_brought_back_as_a_run_of_the_asker(context, page, server, hub, run, store):
    open_publish(page, server)
    publish(page, "ann/there-and-back")
    expect_push(page, "succeeded")
    page.locator("#publish-import button").first.click()
    source = page.locator("#import-source input, #import-source textarea")
    source.fill("nonsense")
    page.locator("#import-go").click()
    expect(page.locator("#import-told")).to_contain_text("owner/name")
    source.fill(f"{hub.url}/ann/there-and-back")
    page.locator("#import-go").click()
    expect(page.locator("#import-told")).to_contain_text("Imported from ann/there-and-back")
    name = page.locator("#import-told code").inner_text()
    brought = store.run(name)
    assert brought.job().owner == "127.0.0.1"
    assert (brought.folder.adapter / WEIGHTS).read_bytes() == (run.folder.adapter / WEIGHTS).read_bytes()
    page.locator("#import-told").get_by_role("link", name="compare it").click()
    expect(page.locator("#compare-result .rsm-verdict")).to_be_visible()
    train = context.new_page()  # leaving a page would break off the pictures that it fetches
    train.goto(f"{server.url}/?run={name}")
    expect(train.locator("#more")).to_be_visible()
    expect(train.locator("#publish")).to_have_attribute("href", f"./publish?run={name}")


def test_the_pasted_token_is_in_no_file_page_or_process(page, server, hub, run):
    open_publish(page, server)
    publish(page, "ann/with-a-canary")
    expect(page.locator("#publish-status [data-push='succeeded']")).to_contain_text("ann/with-a-canary")
    kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    assert CANARY not in page.evaluate(kept) + page.content()
    files = [path for path in server.runs.parent.rglob("*") if path.is_file()]
    assert any(path.name == "push.json" for path in files)
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    for name in ("cmdline", "environ"):
        assert CANARY.encode() not in Path(f"/proc/{server.process.pid}/{name}").read_bytes()


def test_the_page_fits_its_window_and_everything_has_a_name(page, server, run):
    page.set_viewport_size({"width": 360, "height": 800})
    open_publish(page, server)
    expect_fits(page)
    nameless = (
        "[...document.querySelectorAll('#publish-card img')].filter(i => !i.alt).length + "
        "[...document.querySelectorAll('button')].filter(b => b.offsetParent && !b.innerText.trim() && "
        "!b.ariaLabel && !b.title).length"
    )
    assert page.evaluate(nameless) == 0
    page.set_viewport_size({"width": 1280, "height": 800})
    expect_fits(page)
