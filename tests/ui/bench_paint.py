"""Measure how fast the page is there: start to usable, and first paint against an empty Gradio page.

``python tests/ui/bench_paint.py [--starts 3] [--paints 11]``; prints medians with the spread. Every paint is
in a new browser context (cold cache), the two pages in turn, on the same machine at the same time. Not a
test: a busy machine slows both, so read the ratio and the spread together.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.ui.server import BROWSER_ARGUMENTS, Server, find_chromium  # noqa: E402

_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def start_seconds(browser, runs: Path) -> float:
    """Return the seconds from starting ``python app.py`` to a page whose Start button can be pressed."""
    server = Server(runs)
    began = time.monotonic()
    server.start().wait()
    page = browser.new_page()
    try:
        page.goto(server.url)
        page.locator("#start:enabled").wait_for()
        page.locator("#run-status section:not([aria-busy])").wait_for()
        return time.monotonic() - began
    finally:
        page.close()
        server.stop()


def first_paint(browser, url: str) -> float:
    """Return the milliseconds to the first contentful paint in a new browser context."""
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(url)
        page.wait_for_function(_PAINT)
        return page.evaluate(_PAINT)
    finally:
        context.close()


def spread(values: list[float]) -> str:
    """Write a median with the smallest and largest value."""
    return f"{statistics.median(values):.3g} (from {min(values):.3g} to {max(values):.3g}, n = {len(values)})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--paints", type=int, default=11)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        runs = Path(folder) / "runs"
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=BROWSER_ARGUMENTS)
        starts = [start_seconds(browser, runs) for _ in range(options.starts)]
        print(f"app start to usable page, s: {spread(starts)}")
        servers = [Server(runs), Server(runs, program=("tests/ui/empty_page.py",))]
        try:
            app, empty = (server.start().wait() for server in servers)
            paints = {"app": [], "empty": []}
            for _ in range(options.paints):
                paints["app"].append(first_paint(browser, app.url))
                paints["empty"].append(first_paint(browser, empty.url))
        finally:
            for server in servers:
                server.stop()
        for name, values in paints.items():
            print(f"first contentful paint of the {name} page, ms: {spread(values)}")
        ratios = [a / b for a, b in zip(paints["app"], paints["empty"], strict=True)]
        medians = statistics.median(paints["app"]) / statistics.median(paints["empty"])
        print(f"ratio of medians: {medians:.2f}; ratio turn by turn: {spread(ratios)}")
        browser.close()


if __name__ == "__main__":
    main()
