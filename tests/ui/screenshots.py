"""Take the pictures of the pages that the documents show: ``python tests/ui/screenshots.py``.

A real run is started through the page and photographed on the way, then the other pages with it. Pictures
have few colours, so that they stay small. ``--everything`` takes every page in dark and on a phone, too.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.ui.server import BROWSER_ARGUMENTS, ROOT, Server, find_chromium  # noqa: E402
from tests.ui.steps import CURVE, choose, expect_result, expect_state, open_page  # noqa: E402

DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 760}
KINDS = {"": ("light", DESKTOP), "-dark": ("dark", DESKTOP), "-phone": ("light", PHONE)}
WAIT_MS = 180_000


@dataclass
class Camera:
    """Photographs windows into a folder."""

    browser: Browser
    into: Path

    def window(self, kind: str = "") -> Page:
        """Open an empty window of a kind."""
        scheme, size = KINDS[kind]
        page = self.browser.new_context(viewport=size, color_scheme=scheme).new_page()
        page.set_default_timeout(60_000)
        return page

    def save(self, page: Page, name: str) -> None:
        """Photograph a window into ``NAME.png``."""
        self.into.mkdir(parents=True, exist_ok=True)
        path = self.into / f"{name}.png"
        page.wait_for_timeout(1200)
        page.screenshot(path=path)
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size // 1024} kB", flush=True)


def take_run(camera: Camera, url: str, budget: str) -> str:
    """Walk through a run, photograph each state and return its id."""
    page = camera.window()
    open_page(page, url)
    camera.save(page, "start")
    choose(page, "budget", budget)
    page.locator("#start").click()
    page.wait_for_url("**run=*")
    expect(page.locator(".rsm-run[data-phase='train']")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator(CURVE).first).to_be_attached(timeout=WAIT_MS)  # a flat curve has no height to see
    page.wait_for_timeout(int(budget) * 300)
    camera.save(page, "training")
    expect(page.locator(".rsm-run[data-state='succeeded']")).to_be_visible(timeout=int(budget) * 4000)
    expect_result(page)
    page.locator("#header").scroll_into_view_if_needed()
    camera.save(page, "result")
    page.locator("#pair-caption").scroll_into_view_if_needed()
    camera.save(page, "pairs")
    for kind in ("-dark", "-phone"):
        other = camera.window(kind)
        other.goto(page.url)
        expect_state(other, "succeeded")
        camera.save(other, f"result{kind}")
    return page.url.split("run=")[1]


def take_pages(camera: Camera, url: str, run_id: str, kind: str) -> None:
    """Photograph the other pages with a finished run."""
    page = camera.window(kind)
    page.goto(f"{url}/compare?run={run_id}")
    expect(page.locator("#compare-result .rsm-verdict")).to_be_visible()
    camera.save(page, f"compare{kind}")
    page.get_by_role("tab", name="Playground").click()
    page.locator("#play-prompt textarea").fill("a green circle above a red square")
    page.locator("#draw").click()
    expect(page.locator("#drawn img").nth(1)).to_be_visible()
    page.locator("#drawn").scroll_into_view_if_needed()
    camera.save(page, f"playground{kind}")
    page.goto(f"{url}/runs?run={run_id}")
    expect(page.locator("#runs-facts")).to_contain_text(run_id)
    camera.save(page, f"runs{kind}")
    for name, address in {"publish": f"publish?run={run_id}", "lab": "lab", "about": "about"}.items():
        page.goto(f"{url}/{address}")
        expect(page.locator("#header h1")).to_be_visible()
        page.wait_for_timeout(5000)  # until its figures are drawn
        camera.save(page, f"{name}{kind}")


def main() -> None:
    """Start the app, take the pictures and stop it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="90", help="one of the page's time budgets, in seconds")
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "images", help="where the pictures go")
    parser.add_argument("--everything", action="store_true", help="every page in dark and on a phone, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=BROWSER_ARGUMENTS)
        server = Server(Path(folder) / "runs").start().wait()
        camera = Camera(browser, options.into)
        try:
            run_id = take_run(camera, server.url, options.budget)
            for kind in KINDS if options.everything else ("",):
                take_pages(camera, server.url, run_id, kind)
        finally:
            server.stop()
            browser.close()


if __name__ == "__main__":
    main()
