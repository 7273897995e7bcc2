"""Take the pictures of the page that the documents show: ``python tests/ui/screenshots.py``.

A short real run is started through the page and photographed on the way; pictures are written to
``docs/images`` with few colours, so that they stay small.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.ui.server import BROWSER_ARGUMENTS, ROOT, Server, find_chromium  # noqa: E402
from tests.ui.steps import CURVE, choose, expect_result, expect_state, open_page  # noqa: E402

IMAGES = ROOT / "docs" / "images"
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 760}


def save(page: Page, name: str) -> None:
    """Photograph the window into ``docs/images/NAME.png``."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{name}.png"
    page.wait_for_timeout(800)
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} kB")


def new_page(browser: Browser, scheme: str = "light", size: dict = DESKTOP) -> Page:
    """Open an empty window."""
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.set_default_timeout(30_000)
    return page


def take(browser: Browser, url: str, budget: str) -> None:
    """Walk through a run and photograph each state."""
    page = new_page(browser)
    open_page(page, url)
    save(page, "start")
    choose(page, "budget", budget)
    page.locator("#start").click()
    page.wait_for_url("**run=*")
    expect(page.locator(".rsm-run[data-phase='train']")).to_be_visible(timeout=120_000)
    expect(page.locator(CURVE).first).to_be_visible(timeout=120_000)
    page.wait_for_timeout(int(budget) * 300)
    save(page, "training")
    expect(page.locator(".rsm-run[data-state='succeeded']")).to_be_visible(timeout=int(budget) * 4000)
    expect_result(page)
    page.locator("#header").scroll_into_view_if_needed()
    save(page, "result")
    page.locator("#pair-caption").scroll_into_view_if_needed()
    save(page, "pairs")
    for name, scheme, size in (("result-dark", "dark", DESKTOP), ("result-phone", "light", PHONE)):
        other = new_page(browser, scheme, size)
        other.goto(page.url)
        expect_state(other, "succeeded")
        save(other, name)


def main() -> None:
    """Start the app, take the pictures and stop it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="60", help="one of the page's time budgets, in seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=BROWSER_ARGUMENTS)
        server = Server(Path(folder) / "runs").start().wait()
        try:
            take(browser, server.url, options.budget)
        finally:
            server.stop()
            browser.close()


if __name__ == "__main__":
    main()
