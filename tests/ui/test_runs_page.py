"""The runs page in a real browser: real runs listed, steered, exported and deleted."""

import json
import os
import signal
import zipfile

import pytest
from playwright.sync_api import expect

from rsm_app.jobs.store import RunStore
from tests.faults.many_runs import finished_run, make_finished_runs
from tests.jobs.small_runs import end_workers, wait_for
from tests.ui.server import Server
from tests.ui.steps import RUN_MS, expect_fits, expect_state, open_page, start_small
from trainers.run_folder import write_json


def open_runs(page, url, query=""):
    page.goto(f"{url}/runs{query}")
    expect(page.locator("#runs-table [aria-busy]")).to_have_count(0)


def line(page, run):
    return page.locator(f"#runs-table tr[data-run='{run.id}']")


def choose(page, run):
    line(page, run).locator("button").click()
    expect(page.locator("#runs-facts")).to_contain_text(run.id)


def expect_line(page, run, state):
    expect(page.locator(f"tr[data-run='{run.id}'][data-state='{state}']")).to_be_visible(timeout=RUN_MS)


def reported(run, gain=0.12, z=3.4):
    paired = {"n": 8, "mean_gain": gain, "stderr": abs(gain / z), "z": z, "win_rate": 0.8}
    sides = {side: {"reward": {"mean": mean}} for side, mean in (("before", 0.5), ("after", 0.5 + gain))}
    write_json(run.folder.report, {**sides, "paired": paired, "wall_seconds": 83.0})
    return run


@pytest.fixture
def many(tmp_path):
    """An app on a directory with 60 ended runs."""
    store = RunStore(tmp_path / "runs")
    for run in make_finished_runs(store, 60):
        reported(run).change_job(owner="127.0.0.1")
    server = Server(store.root).start().wait()
    yield server, store
    server.stop()


def test_a_run_is_followed_to_its_end_opened_exported_pinned_and_deleted(
    page, context, server, store, tmp_path
):
    open_runs(page, server.url)
    expect(page.locator("#runs-table")).to_contain_text("No run yet")
    page.get_by_role("link", name="Train", exact=True).click()
    run = store.run(start_small(page, max_updates=3))
    page.get_by_role("link", name="Runs", exact=True).click()
    expect_line(page, run, "running")
    expect(line(page, run)).to_contain_text("Colo")
    expect(line(page, run)).to_contain_text("you")
    expect(page.locator("#runs-summary")).to_contain_text("1 at work")
    choose(page, run)
    expect(page.locator("#runs-stop")).to_be_visible()
    expect(page.locator("#runs-delete")).to_be_hidden()
    expect_line(page, run, "succeeded")
    expect(line(page, run).locator("td[data-label='Gain']")).to_contain_text("±")
    expect(line(page, run).locator("td[data-label='Size']")).to_contain_text("B")
    expect(page.locator("#runs-facts")).to_contain_text("reward")
    expect(page.locator("#runs-stop")).to_be_hidden()

    page.locator("#runs-export").click()
    with page.expect_download() as download:
        page.locator("#runs-save").click()
    download.value.save_as(tmp_path / "run.zip")
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        names = archive.namelist()
        settings = json.loads(archive.read(f"{run.id}/config.json"))
    assert f"{run.id}/adapter/pytorch_lora_weights.safetensors" in names
    assert settings["max_updates"] == 3 and not [name for name in names if "log" in name]

    page.locator("#runs-pin").click()
    expect(line(page, run)).to_contain_text("Pinned")
    page.locator("#runs-delete").click()
    expect(page.locator("#runs-notice")).to_contain_text("Unpin it")
    page.locator("#runs-pin").click()
    expect(line(page, run)).not_to_contain_text("Pinned")
    second = context.new_page()
    open_runs(second, server.url)
    expect(second.locator("#runs-facts")).to_contain_text(run.id)
    second.locator("#runs-open").click()
    expect_state(second, "succeeded")
    assert run.id in second.url
    second.go_back()
    expect_line(second, run, "succeeded")

    page.locator("#runs-delete").click()
    question = page.locator("#runs-question")
    expect(question).to_contain_text(run.id)
    expect(question).to_contain_text("the adapter, 16 pairs of pictures, 3 updates of measurements")
    page.locator("#runs-keep").click()
    expect(question).to_be_hidden()
    assert run.exists()
    page.locator("#runs-delete").click()
    page.locator("#runs-really").click()
    expect(page.locator("#runs-notice")).to_contain_text(f"Run {run.id} was deleted")
    expect(line(page, run)).to_have_count(0)
    expect(page.locator("#runs-bar")).to_be_hidden()
    assert not run.path.exists()
    expect(line(second, run)).to_have_count(0)
    expect(second.locator("#runs-bar")).to_be_hidden()


def test_the_queue_is_seen_and_steered_through_a_killed_worker_and_a_restart(page, context, tmp_path):
    server = Server(tmp_path / "runs", environment={"RSM_DEVICES": "cpu"}).start().wait()
    store = RunStore(server.runs)
    try:
        open_page(page, server.url)
        first = store.run(start_small(page))
        page.locator("#start").click()
        wait_for(lambda: len(store.runs()) == 2, what="the second run")
        second = next(run for run in store.runs() if run.id != first.id)
        open_runs(page, server.url)
        expect_line(page, second, "queued")
        expect(line(page, second)).to_contain_text("1 of 1 in the queue")
        choose(page, second)
        page.locator("#runs-stop:has-text('Take out of the queue')").click()
        expect_line(page, second, "stopped")
        expect(page.locator("#runs-resume")).to_be_visible()

        other = context.new_page()
        open_runs(other, server.url, f"?run={first.id}")
        expect(other.locator("#runs-facts")).to_contain_text(first.id)
        wait_for(lambda: list(first.folder.checkpoints.glob("*.safetensors")), what="a checkpoint")
        os.kill(first.worker().pid, signal.SIGKILL)
        for tab in (page, other):
            expect_line(tab, first, "interrupted")
        other.locator("#runs-resume").click()
        expect_line(page, first, "running")
        other.close()
        wait_for(lambda: first.status().phase == "train", what="training again")  # before, there is no gain

        page.goto("about:blank")
        server.stop()
        server.start().wait()
        open_runs(page, server.url)
        expect_line(page, first, "running")
        expect(page.locator("#runs-facts")).to_contain_text(first.id)  # the browser's last choice
        page.locator("#runs-stop").click()
        expect_line(page, first, "stopped")
        expect(line(page, first).locator("td[data-label='Gain']")).to_contain_text("±")
        page.close()
    finally:
        server.stop()
        end_workers(store)


def test_searching_filtering_and_turning_pages_survive_a_reload(many, page):
    server, store = many
    open_runs(page, server.url)
    lines = page.locator("#runs-table tbody tr")
    expect(lines).to_have_count(25)
    expect(page.locator("#runs-shown")).to_contain_text("Runs 1 to 25 of 60")
    expect(page.locator("#runs-newer")).to_be_disabled()
    page.locator("#runs-older").click()
    expect(page.locator("#runs-shown")).to_contain_text("Runs 26 to 50 of 60")
    page.locator("#runs-older").click()
    expect(page.locator("#runs-shown")).to_contain_text("Runs 51 to 60 of 60")
    expect(page.locator("#runs-older")).to_be_disabled()
    page.locator("#runs-state").get_by_label("Failed or interrupted").check()
    expect(lines).to_have_count(15)
    expect(page.locator("#runs-pager")).to_be_hidden()
    page.locator("#runs-search textarea, #runs-search input").first.fill(store.names()[0])
    expect(lines).to_have_count(1)
    page.reload()
    expect(page.locator("#runs-table [aria-busy]")).to_have_count(0)
    expect(lines).to_have_count(1)
    expect(page.locator("#runs-search textarea, #runs-search input").first).to_have_value(store.names()[0])
    assert page.locator("#runs-state").get_by_label("Failed or interrupted").is_checked()
    page.locator("#runs-search textarea, #runs-search input").first.fill("zebra")
    expect(page.locator("#runs-table")).to_contain_text("No run fits")
    page.locator("#runs-search textarea, #runs-search input").first.fill("")
    page.locator("#runs-state").get_by_label("All", exact=True).check()
    expect(lines).to_have_count(25)


def test_a_poll_sends_nothing_that_has_not_changed_and_leaves_the_focus_where_it_is(many, page):
    server, store = many
    open_runs(page, server.url)
    run = store.runs()[0]
    choose(page, run)
    expect(page.locator("#runs-open")).to_be_focused()
    button = line(page, store.runs()[3]).locator("button")
    button.focus()
    page.evaluate(
        """() => { window.changes = 0; new MutationObserver(() => { window.changes += 1; })
            .observe(document.querySelector('#runs-table .rsm-runs'), {subtree: true, childList: true,
                attributes: true, characterData: true}); }"""
    )
    page.wait_for_timeout(11_000)  # two polls
    assert page.evaluate("window.changes") == 0
    write_json(run.folder.status_file, {"state": "failed", "error": "It broke.", "heartbeat": 9.0})
    expect(line(page, run)).to_contain_text("It broke.")
    expect(button).to_be_focused()


def test_with_the_keyboard_a_run_is_chosen_and_its_buttons_are_next(many, page):
    server, store = many
    open_runs(page, server.url)
    line(page, store.runs()[1]).locator("button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#runs-facts")).to_contain_text(store.runs()[1].id)
    expect(page.locator("#runs-open")).to_be_focused()
    expect(line(page, store.runs()[1]).locator("button")).to_have_attribute("aria-pressed", "true")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, button')]
            .filter(e => e.offsetParent && !e.labels?.length && !e.getAttribute('aria-label')
                && !e.closest('label') && !e.innerText.trim()).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []


def test_another_owner_s_shared_run_can_be_opened_and_nothing_else(many, page):
    server, store = many
    run = store.runs()[0]
    run.change_job(owner="203.0.113.9", shared=True)
    open_runs(page, server.url)
    expect(line(page, run)).to_contain_text("another visitor")
    assert "203.0.113.9" not in page.content()
    choose(page, run)
    expect(page.locator("#runs-facts")).to_contain_text("belongs to somebody else")
    expect(page.locator("#runs-open")).to_be_visible()
    for name in ("stop", "resume", "pin", "export", "delete"):
        expect(page.locator(f"#runs-{name}")).to_be_hidden()


def test_a_failed_run_is_tried_again_with_its_settings(many, page):
    server, store = many

    def change(run):
        settings = run.settings() | {"reward": "colorfulness", "seed": 77, "max_updates": 5}
        run.folder.config.write_text(json.dumps(settings))

    run = finished_run(store, 103, change)
    open_runs(page, server.url)
    choose(page, run)
    page.locator("#runs-retry").click()
    expect_state(page, "failed")
    expect(page.locator("#seed input")).to_have_value("77")
    assert page.locator("#reward input[value='colorfulness']").is_checked()
    expect(page.locator("#start")).to_be_enabled()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_fits_its_window(many, page, width):
    server, store = many
    write_json(store.runs()[0].folder.status_file, {"state": "failed", "error": "far/too/long" * 40})
    page.set_viewport_size({"width": width, "height": 800})
    open_runs(page, server.url)
    expect_fits(page)
    choose(page, store.runs()[0])
    expect_fits(page)
    expect(page.locator("#runs-open")).to_be_in_viewport()
    choose(page, store.runs()[1])
    page.locator("#runs-delete").click()
    expect(page.locator("#runs-really")).to_be_in_viewport()
    expect_fits(page)
