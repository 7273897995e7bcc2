"""The first visit: everything as it comes, from an empty page to an exported run, then every page by axe."""

import zipfile

import pytest
from playwright.sync_api import expect

from tests.ui.steps import CURVE, RUN_MS, choose, expect_accessible, expect_result, expect_state, open_page

PAGES = ("", "compare", "runs", "publish", "lab", "about")


@pytest.fixture(scope="module")
def journey():
    """What the first test leaves for those after it: the finished run's id."""
    return {}


def test_two_clicks_lead_to_a_comparison_and_the_other_pages_go_on_from_there(
    page, server, store, journey, tmp_path
):
    page.goto(server.url)
    expect(page.locator("#start")).to_be_enabled()
    choose(page, "budget", "120")  # the machine is shared with other tests; else everything is as it comes
    page.locator("#start").click()
    page.wait_for_url("**run=*")
    journey["run"] = run_id = page.url.split("run=")[1]
    expect(page.locator("#before-gallery img").first).to_be_visible(timeout=RUN_MS)
    expect_state(page, "succeeded")
    if store.run(run_id).folder.read_report()["updates"] >= 2:  # a busy machine may have had time for one
        expect(page.locator(CURVE).first).to_be_visible()
    expect_result(page)

    page.get_by_role("link", name="Compare", exact=True).click()
    expect(page.locator("#compare-result .rsm-verdict")).to_be_visible()
    page.wait_for_url(f"**run={run_id}")  # the run that has just finished is shown
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


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_has_a_serious_accessibility_violation(page, server, journey, name, scheme, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    chosen = f"?run={journey['run']}" if name in ("", "compare", "runs", "publish") else ""
    if name:
        page.goto(f"{server.url}/{name}{chosen}")
        expect(page.locator("#header h1")).to_be_visible()
    else:
        open_page(page, f"{server.url}/{chosen}")
        expect_result(page)
    expect(page.locator("[aria-busy='true']")).to_have_count(0, timeout=RUN_MS)  # figures are drawn
    page.wait_for_timeout(2500)  # what is still filled in is judged as well
    expect_accessible(page)
