"""The first visit: everything as it comes, from an empty page to an exported run, then every page by axe."""

import json
import shutil
import zipfile

import pytest
from playwright.sync_api import expect

from tests.e2e.shell import settings, trainers
from tests.ui.steps import (
    CURVE,
    RUN_MS,
    choose,
    choose_several,
    expect_accessible,
    expect_result,
    expect_state,
    open_page,
    start_small,
    tab,
)

PAGES = ("", "compare", "runs", "publish", "lab", "about")
LOOKS = [("light", 1280), ("dark", 360)]
FIRST, SECOND = "20260101-000000-aaaaaa", "20260102-000000-bbbbbb"


@pytest.fixture(scope="module")
def finished(store):
    """The names of two finished runs, whatever became of other tests."""
    words = ["train", "--reward", "colorfulness", "--estimator", "rsm_first_order_flow"]
    words += ["--budget-seconds", "900", "--out", str(store.root / FIRST)]
    small = settings(eval_prompts=8, eval_samples_per_prompt=2, max_updates=3, probe_every=1, probe_prompts=3)
    done = trainers(*words, *small)
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.copytree(store.root / FIRST, store.root / SECOND)
    return FIRST, SECOND


@pytest.fixture
def look(page, scheme, width):
    """A page in one of the two looks."""
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    return page


def expect_quiet_and_accessible(page):
    """Wait until figures are drawn and what follows them is filled in, then judge."""
    expect(page.locator("[aria-busy='true']")).to_have_count(0, timeout=RUN_MS)
    page.wait_for_timeout(2500)
    expect_accessible(page)


def test_a_start_leads_to_a_comparison_and_the_other_pages_go_on_from_there(page, server, store, tmp_path):
    page.goto(server.url)
    expect(page.locator("#start")).to_be_enabled()
    choose(page, "budget", "900")  # it is stopped when it has a curve; else everything is as it comes
    page.locator("#start").click()
    page.wait_for_url("**run=*")
    run_id = page.url.split("run=")[1]
    expect(page.locator("#before-gallery img").first).to_be_visible(timeout=RUN_MS)
    expect(page.locator(CURVE).first).to_be_visible(timeout=RUN_MS)
    page.locator("#stop").click()
    expect_state(page, "stopped")
    expect_result(page)

    page.get_by_role("link", name="Compare", exact=True).click()
    expect(page.locator("#compare-result .rsm-verdict")).to_be_visible()
    page.wait_for_url(f"**run={run_id}")  # the run that has just ended is shown
    page.get_by_role("tab", name="Playground").click()
    page.locator("#play-prompt textarea").fill("a green circle above a red square")
    page.locator("#draw").click()
    for side in ("#drawn img >> nth=0", "#drawn img >> nth=1"):
        expect(page.locator(side)).to_be_visible(timeout=RUN_MS)

    page.get_by_role("link", name="Runs", exact=True).click()
    page.locator(f"#runs-table [data-run='{run_id}']").first.click()
    page.locator("#runs-export").click()
    with page.expect_download() as download:
        page.locator("#runs-save").click()
    download.value.save_as(tmp_path / "run.zip")
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        assert f"{run_id}/adapter/pytorch_lora_weights.safetensors" in archive.namelist()


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_no_page_has_a_serious_accessibility_violation(look, server, finished, name):
    chosen = f"?run={FIRST}" if name in ("", "compare", "runs", "publish") else ""
    if name:
        look.goto(f"{server.url}/{name}{chosen}")
        expect(look.locator("#header h1")).to_be_visible()
    else:
        open_page(look, f"{server.url}/{chosen}")
        expect_result(look)
    expect_quiet_and_accessible(look)


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_no_tab_of_compare_has_one(look, server, finished):
    look.goto(f"{server.url}/compare?run={FIRST}")
    expect(look.locator("#compare-result .rsm-verdict")).to_be_visible()
    if not look.get_by_role("tab", name="Several runs").is_visible():  # a narrow page folds some away
        look.get_by_role("tab", name="One run").focus()
        look.keyboard.press("Tab")
        look.keyboard.press("Enter")
    else:
        tab(look, "Several runs")
    choose_several(look, *finished)
    expect(look.locator("#several-heldout .mark-line path")).to_have_count(2)
    expect_quiet_and_accessible(look)
    tab(look, "Playground")
    look.locator("#play-prompt textarea").fill("a red circle")
    look.locator("#draw").click()
    # Judged with its pictures: Gradio labels the place of one that is missing, which has no role.
    for side in ("before", "after"):
        expect(look.locator(f"#drawn-{side} img")).to_be_visible(timeout=RUN_MS)
    look.locator("#play-seed input").fill("-1")
    look.locator("#draw").click()
    expect(look.locator("#told-seed")).to_be_visible()
    expect_quiet_and_accessible(look)


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_a_run_that_failed_has_none(look, server, store, finished, scheme):
    run = store.run(shutil.copytree(store.root / FIRST, store.root / f"20260103-000000-{scheme}").name)
    run.folder.report.unlink()
    run.folder.pairs.unlink()
    status = json.loads(run.folder.status_file.read_text())
    status |= {"state": "failed", "phase": "train", "error": "The reward failed. Choose another."}
    run.folder.status_file.write_text(json.dumps(status))
    open_page(look, f"{server.url}/?run={run.id}")
    expect(look.locator(".rsm-failure")).to_contain_text("What to do")
    expect_quiet_and_accessible(look)


def test_a_run_at_work_has_none(page, server):
    open_page(page, server.url)
    start_small(page, max_updates=0, probe_every=1, probe_prompts=3)
    expect(page.locator(CURVE).first).to_be_visible(timeout=RUN_MS)
    expect_state(page, "running")
    expect_accessible(page)
