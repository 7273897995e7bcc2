"""Real runs of the real engine, watched in a real browser."""

import json
import os
import re
import signal
import zipfile

from playwright.sync_api import expect

from tests.jobs.small_runs import wait_for
from tests.ui.server import Server
from tests.ui.steps import (
    CURVE,
    RUN_MS,
    choose,
    expect_fits,
    expect_result,
    expect_state,
    open_page,
    start_small,
)


def test_choose_start_watch_compare_download_and_come_back(page, context, server, store, tmp_path):
    open_page(page, server.url)
    expect(page.locator("#run-status")).to_contain_text("No run yet")
    run_id = start_small(page, max_updates=6, probe_every=2, probe_prompts=3)
    run = store.run(run_id)
    expect_state(page, "running")
    expect(page.locator("#before-gallery img").first).to_be_visible(timeout=RUN_MS)
    expect(page.locator(CURVE).first).to_be_visible(timeout=RUN_MS)
    expect_state(page, "succeeded")
    expect_result(page)
    expect(page.locator("#before-gallery")).to_be_hidden()
    expect(page.locator(".rsm-run .rsm-figures")).to_contain_text("6")
    assert run.settings()["max_updates"] == 6 and run.folder.read_report()["updates"] == 6
    for plot in ("kl", "gradient", "clip", "heldout", "others"):
        expect(page.locator(f"#{plot}-plot .mark-line path").first).to_be_attached()  # may be a flat line
    expect(page.locator("#strip button.thumbnail-item")).to_have_count(3)
    expect(page.locator("#strip")).to_contain_text("Base model: mean reward")
    expect(page.locator("#strip")).to_contain_text("Update 4: mean reward")
    expect(page.locator("#strip-prompts li")).to_have_count(3)
    expect(page.locator("#others-legend")).to_contain_text("Caption fit (tiny CLIP)")
    expect(page.locator("#symptoms section")).to_have_count(0)

    caption = page.locator("#pair-caption")
    pairs = sorted(run.folder.read_pairs(), key=lambda pair: pair["reward_before"] - pair["reward_after"])
    expect(caption).to_contain_text(pairs[0]["prompt"])
    page.locator("#pairs button.thumbnail-item").nth(3).click()
    expect(caption).to_contain_text(f"seed {pairs[3]['seed']}")
    page.locator("#order input").click()
    page.get_by_role("option", name="Largest loss first").click()
    expect(caption).to_contain_text(f"seed {pairs[-1]['seed']}")

    words = page.locator("#command textarea").input_value()
    assert words.startswith("python -m trainers train --model tiny-flow --reward colorfulness")
    assert "--set max_updates=6" in words and "--out" in words
    page.locator("#adapter").click()
    expect(page.locator("#save")).to_contain_text(f"Save {run_id}-adapter.zip")
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(tmp_path / "adapter.zip")
    with zipfile.ZipFile(tmp_path / "adapter.zip") as archive:
        assert "pytorch_lora_weights.safetensors" in archive.namelist()
    page.locator("#report").click()
    expect(page.locator("#save")).to_contain_text(f"Save {run_id}-report.json")
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == run.folder.read_report()

    choose(page, "reward", "shapes")
    choose(page, "budget", "60")
    expect(page.locator("#estimator input[value='rsm_first_order_flow']")).to_have_count(0)
    page.locator("#duplicate").click()
    expect(page.locator("#reward input[value='colorfulness']")).to_be_checked()
    expect(page.locator("#budget input[value='900']")).to_be_checked()
    expect(page.locator("#set-max_updates input")).to_have_value("6")
    expect(page.locator("#preflight")).to_contain_text("Measured in an earlier run")

    page.reload()
    expect_state(page, "succeeded")
    expect_result(page)
    assert page.locator("#reward input[value='colorfulness']").is_checked(), (
        "the form shows the run's settings"
    )
    second = context.new_page()
    second.goto(server.url)
    expect_state(second, "succeeded")
    assert run_id in second.url, "the browser remembers the run"
    for width in (360, 768):
        second.set_viewport_size({"width": width, "height": 800})
        expect_result(second)
        expect_fits(second)


def test_a_run_survives_reload_a_second_tab_and_an_app_restart_and_stop_keeps_its_results(
    page, context, browser, tmp_path
):
    server = Server(tmp_path / "runs").start().wait()
    try:
        open_page(page, server.url)
        run_id = start_small(page)
        expect(page.locator(CURVE).first).to_be_visible(timeout=RUN_MS)
        drawn = page.locator(CURVE).first.get_attribute("d")
        expect(page.locator(CURVE).first).not_to_have_attribute("d", drawn, timeout=RUN_MS)
        page.reload()
        expect_state(page, "running")
        expect(page.locator("#stop")).to_be_enabled()
        assert page.locator("#budget input[value='900']").is_checked()

        page.locator("#start").click()
        expect_state(page, "queued")
        expect(page.locator(".rsm-message")).to_contain_text(
            "Position 1 of 1 in the queue; expected to start"
        )
        page.locator("#stop").click()
        expect_state(page, "stopped")
        expect(page.locator(".rsm-message")).to_contain_text("before it began")

        stranger = browser.new_context().new_page()
        stranger.goto(server.url)
        expect_state(stranger, "running")
        assert run_id in stranger.url, "a fresh browser is shown the live run"
        stranger.context.close()

        page.goto("about:blank")
        server.stop()
        server.start().wait()
        page.goto(f"{server.url}/?run={run_id}")
        expect_state(page, "running")
        second = context.new_page()
        second.goto(f"{server.url}/?run={run_id}")
        expect_state(second, "running")
        second.locator("#stop").click()
        expect(second.locator(".rsm-run")).to_have_attribute("data-state", re.compile("stopp"))
        for tab in (page, second):
            expect_state(tab, "stopped")
            expect_result(tab)
            expect(tab.locator("#stop")).to_be_hidden()
            expect(tab.locator("#more")).to_be_visible()
        page.locator("#log-box button").first.click()
        expect(page.locator("#log textarea")).to_have_value(re.compile("stopped · done"))
        page.locator("#more").click()
        expect_state(page, "running")
        page.locator("#stop").click()
        expect_state(page, "stopped")
        for tab in (page, second):
            tab.close()
    finally:
        server.stop()


def test_a_killed_worker_is_told_in_words_and_resumes_by_a_button(page, server, store):
    open_page(page, server.url)
    run = store.run(start_small(page, max_updates=12))
    wait_for(lambda: list(run.folder.checkpoints.glob("*.safetensors")), what="a checkpoint")
    os.kill(run.worker().pid, signal.SIGKILL)
    expect_state(page, "interrupted")
    expect(page.locator(".rsm-message")).to_contain_text("press Resume")
    page.locator("#resume").click()
    expect_state(page, "running")
    expect(page.locator("#resume")).to_be_hidden()
    expect_state(page, "succeeded")
    expect_result(page)
    assert run.folder.read_report()["updates"] == 12


def test_a_failed_run_says_why_and_what_to_do_and_is_tried_again_by_a_button(page, server, store):
    open_page(page, server.url)
    run = store.run(start_small(page, max_updates=4))
    wait_for(lambda: list(run.folder.checkpoints.glob("*.safetensors")), what="a checkpoint")
    os.kill(run.worker().pid, signal.SIGKILL)
    expect_state(page, "interrupted")
    damaged = list(run.folder.checkpoints.glob("*.safetensors"))
    for path in damaged:
        path.write_bytes(b"damaged")
    page.locator("#resume").click()
    expect_state(page, "failed")
    told = page.locator(".rsm-failure")
    expect(told).to_contain_text("What happened")
    expect(told).to_contain_text("is damaged, so the run cannot be resumed")
    expect(told).to_contain_text("What to do")
    expect(page.locator("#resume")).to_be_hidden()
    for path in damaged:
        path.unlink(missing_ok=True)
    page.locator("#retry").click()
    expect_state(page, "succeeded")
    expect(page.locator("#retry")).to_be_hidden()
    expect_result(page)
    assert run.folder.read_report()["updates"] == 4
