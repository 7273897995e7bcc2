"""Measure what a person feels: ``python tests/ui/bench_live.py``.

A default run is started with one click and watched to its end: bytes that the browser receives per minute of
the live view, clicks until the comparison is there, and how long each click takes to the next painted frame
(the Event Timing API). Then the playground draws, at first ten seconds after its page was opened. Not a test:
a busy machine slows everything.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.ui.server import BROWSER_ARGUMENTS, Server, find_chromium  # noqa: E402
from tests.ui.steps import expect_result, open_page  # noqa: E402

BYTES, CLICK_MS, DRAW_S = 200_000, 150.0, 2.0
DRAWINGS = 5
_WATCH_CLICKS = """
window.felt = [];
new PerformanceObserver(list => {
  for (const entry of list.getEntries()) if (entry.name === 'click') window.felt.push(entry.duration);
}).observe({type: 'event', durationThreshold: 16, buffered: true});
"""

# To the animation frame whose page says so; a browser without a GPU may show that frame much later.
_WATCH_START = """() => {
  const button = document.getElementById('start');
  button.addEventListener('pointerdown', () => {
    const pressed = performance.now();
    const look = () => {
      if (button.disabled) window.said = performance.now() - pressed; else requestAnimationFrame(look);
    };
    look();
  }, {capture: true, once: true});
}"""


class Received:
    """Counts the bytes that a window receives, as they travel; without the program, which browsers keep."""

    def __init__(self, page: Page):
        self.bytes = 0
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.requestWillBeSent", self._sort)
        session.on("Network.dataReceived", self._add)
        self._kept: set[str] = set()

    def _sort(self, event: dict) -> None:
        if "/gradio_api/" not in event["request"]["url"]:
            self._kept.add(event["requestId"])

    def _add(self, event: dict) -> None:
        if event["requestId"] not in self._kept:
            self.bytes += event["encodedDataLength"]


def watch_run(page: Page, received: Received) -> tuple[float, float]:
    """Watch the default run from its start to its end; return its seconds and the bytes per minute."""
    began = time.monotonic()
    page.locator("#start").click()
    page.wait_for_url("**run=*")
    ended = page.locator(".rsm-run[data-state='succeeded']")
    before = received.bytes
    while not ended.is_visible():
        page.wait_for_timeout(500)
    rate = (received.bytes - before) * 60 / (time.monotonic() - began)
    expect_result(page)
    return time.monotonic() - began, rate


def click_about(page: Page) -> list[float]:
    """Use the train page's controls and return the milliseconds from each click to the next frame."""
    for value in ("colorfulness", "jpeg_compressibility", "shapes"):
        page.locator(f"#reward input[value='{value}']").check()
        page.wait_for_timeout(700)
    for value in ("tiny-diffusion", "tiny-flow"):
        page.locator(f"#model input[value='{value}']").check()
        page.wait_for_timeout(700)
    page.locator("#advanced button").first.click()
    page.wait_for_timeout(1500)
    return page.evaluate("window.felt")


def draw(page: Page, url: str, run_id: str) -> list[float]:
    """Draw in the playground some times; return the seconds from each click to both new pictures."""
    page.goto(f"{url}/compare?run={run_id}")
    page.wait_for_timeout(10_000)  # a look at the result, while the engine is loaded
    page.get_by_role("tab", name="Playground").click()
    page.locator("#play-prompt textarea").fill("a green circle above a red square")
    seconds = []
    for seed in range(DRAWINGS):
        page.locator("#play-seed input").fill(str(seed))
        page.locator("#play-seed input").blur()
        page.wait_for_timeout(500)
        began = time.monotonic()
        page.locator("#draw").click()
        expect(page.locator("#draw-facts")).to_contain_text(f"Drawn with seed {seed} ")
        page.wait_for_function(
            "[...document.querySelectorAll('#drawn img')].filter(i => i.naturalWidth > 0).length == 2"
        )
        seconds.append(time.monotonic() - began)
    return seconds


def check_spread(page: Page, url: str) -> float:
    """Return the seconds of the reward's spread check with the default choices."""
    open_page(page, url)
    began = time.monotonic()
    page.locator("#spread").click()
    expect(page.locator(".rsm-spread")).to_be_visible(timeout=60_000)
    return time.monotonic() - began


def main() -> None:
    """Measure and print each figure with its bar."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=BROWSER_ARGUMENTS)
        server = Server(Path(folder) / "runs").start().wait()
        page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        page.add_init_script(_WATCH_CLICKS)
        try:
            open_page(page, server.url)
            page.wait_for_timeout(3000)
            clicks = click_about(page)
            print(
                f"click to next frame, ms: median {statistics.median(clicks):.0f}, worst {max(clicks):.0f}, "
                f"n = {len(clicks)} (bar {CLICK_MS:.0f})"
            )
            print(f"spread check, s: {check_spread(page, server.url):.1f}")
            page.reload()
            open_page(page, server.url)
            page.evaluate(_WATCH_START)
            seconds, rate = watch_run(page, Received(page))
            said = page.evaluate("window.said")
            print(f"Start to the frame that says so, ms: {said:.0f} (bar {CLICK_MS:.0f})")
            print(f"default run, one click to its comparison, s: {seconds:.0f}")
            print(f"live view, kB per minute: {rate / 1000:.0f} (bar {BYTES // 1000})")
            drawings = draw(page, server.url, page.url.split("run=")[1])
            print(
                f"playground, s: first {drawings[0]:.2f}, then median {statistics.median(drawings[1:]):.2f}, "
                f"worst {max(drawings[1:]):.2f} (bar {DRAW_S:.0f})"
            )
        finally:
            server.stop()
            browser.close()


if __name__ == "__main__":
    main()
