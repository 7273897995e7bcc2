"""What a person does on the train page, as functions."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from trainers.config import FIELDS

# A page needs 2 s of a core alone. It is not what is measured: this machine may do much else meanwhile, and
# only a test that fails waits so long.
PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)

SMALL = {
    "eval_prompts": 8,
    "eval_samples_per_prompt": 2,
    "prompts_per_update": 4,
    "updates_per_rollout": 1,
    "branches": "2, 2",
    "rollout_steps": 4,
    "checkpoint_seconds": 0,
}
RUN_MS = 300_000
CURVE = "#reward-plot .mark-line path"


def open_page(page: Page, url: str) -> None:
    """Open the page and wait until it can be used."""
    page.goto(url)
    expect(page.locator("#start")).to_be_enabled()
    expect(page.locator("#run-status section:not([aria-busy])")).to_be_visible()
    page.wait_for_function("() => window.rsmAttached")  # what its tab kept is in the form


def choose(page: Page, group: str, value: str) -> None:
    """Select one radio option by its value."""
    page.locator(f"#{group} input[value='{value}']").check()


def open_section(page: Page, button: Locator, shown: Locator) -> None:
    """Open a closed section and wait until its inputs may be filled.

    Gradio makes the inputs of a section when it is first opened and puts their values into them a frame
    later: what a program types within that frame is lost.
    """
    button.click()
    expect(shown).to_be_visible()
    page.evaluate("() => new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)))")


def set_advanced(page: Page, values: dict) -> None:
    """Open the advanced settings and the sections that are closed, and fill some."""
    for name, value in values.items():
        group = page.locator(f"#group-{FIELDS[name].metadata['group']}")
        if not group.is_visible():
            open_section(page, page.locator("#advanced > button"), group)
        field = page.locator(f"#set-{name}")
        if not field.is_visible():
            open_section(page, group.locator("button").first, field)
        field.locator("input, textarea").first.fill(str(value))


def fill_small(page: Page, **changes) -> None:
    """Choose the settings of a short run, ended by its number of updates and not by its budget."""
    choose(page, "budget", "900")
    choose(page, "reward", "colorfulness")
    expect(page.locator("#estimator input[value='rsm_first_order_flow']")).to_have_count(1)
    set_advanced(page, {**SMALL, **changes})


def tab(page: Page, name: str) -> None:
    """Open a tab of the page."""
    page.get_by_role("tab", name=name).click()


def pick(page: Page, box: str, text: str) -> None:
    """Choose from a list by typing."""
    page.locator(f"#{box} input").first.click()
    page.locator(f"#{box} input").first.fill(text)
    page.get_by_role("option", name=text).click()


def choose_several(page: Page, *names: str) -> None:
    """Choose runs to compare."""
    for name in names:
        pick(page, "several-runs", name)
    page.locator("#header h1").click()  # the list of choices closes


def press_start(page: Page) -> str:
    """Start what was chosen and return the run's id."""
    page.locator("#start").click()
    expect(page.locator("#run-status .rsm-run")).to_be_visible()
    page.wait_for_url("**run=*")
    return page.url.split("run=")[1]


def start_small(page: Page, **changes) -> str:
    """Start a short run and return its id."""
    fill_small(page, **changes)
    return press_start(page)


def expect_state(page: Page, state: str) -> None:
    """Wait until the shown run is in a state."""
    expect(page.locator(f".rsm-run[data-state='{state}']")).to_be_visible(timeout=RUN_MS)


def expect_result(page: Page) -> None:
    """Check that the verdict, the slider and the pairs are there with loaded pictures."""
    expect(page.locator("#result .rsm-verdict")).to_contain_text("reward")
    loaded = "n => [...document.querySelectorAll(n)].filter(i => i.naturalWidth > 0).length"
    page.locator("#slider").scroll_into_view_if_needed()
    page.wait_for_function(f"({loaded})('#slider img') >= 2")
    page.locator("#pairs").scroll_into_view_if_needed()
    page.wait_for_function(f"({loaded})('#pairs img') >= 4")


def expect_fits(page: Page) -> None:
    """Check that the page is no wider than its window; plots follow a resized window after a moment."""
    page.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")


def expect_accessible(page: Page) -> None:
    """Check that the page fits its window and that axe finds nothing serious in it."""
    expect_fits(page)
    serious = [
        (rule["id"], rule["help"], [node["html"][:200] for node in rule["nodes"]][:3])
        for rule in Axe().run(page).response["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
    assert not serious, serious
