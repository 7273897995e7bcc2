"""One app process, one headless Chromium; every page's console and requests are watched."""

import contextlib
import re

import pytest
from playwright.sync_api import sync_playwright

from rsm_app.jobs.store import RunStore
from tests.jobs.small_runs import end_workers
from tests.ui.server import BROWSER_ARGUMENTS, Server, find_chromium
from tests.ui.steps import PATIENCE_MS

# A page that is left or drawn anew drops whatever it was still fetching: streams, a poll on its way, scripts
# fetched ahead, pictures that are replaced. Chromium calls these aborted requests, and only the page itself
# can cause one; a request that the server fails ends in a status of 400 and more or in another error.
_LEFT = re.compile(r"net::ERR_ABORTED$")
# What Gradio's own script prints about the streams that it drops then. A connection that is really lost is
# still seen: its request fails with another error than ERR_ABORTED.
_DROPPED = re.compile(r"^AbortError: signal is aborted|^Unexpected error Connection errored out")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("app") / "runs").start().wait()
    yield running
    running.stop()
    end_workers(RunStore(running.runs))


@pytest.fixture(scope="module")
def store(server):
    return RunStore(server.runs)


@pytest.fixture(scope="session")
def chromium():
    """Path of an installed Chromium for playwright's `executable_path`; None means playwright's own."""
    return find_chromium()


@pytest.fixture(scope="session")
def browser(chromium, every_core):
    """A browser on every core: with one, its many short threads and the app's would starve each other."""
    with contextlib.ExitStack() as stack:
        with every_core():
            playwright = stack.enter_context(sync_playwright())
        running = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def troubles():
    """Console errors, uncaught exceptions, failed requests and bad answers of the test's pages."""
    return []


@pytest.fixture
def context(browser, troubles):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    context.on("page", lambda page: watch(page, troubles))
    yield context
    context.close()
    assert not troubles


@pytest.fixture
def page(context):
    return context.new_page()


def watch(page, troubles: list[str]) -> None:
    page.on("console", lambda message: note_error(message, troubles))
    page.on("pageerror", lambda error: troubles.append(f"exception: {error}"))
    page.on("requestfailed", lambda request: note_failure(f"{request.url} {request.failure}", troubles))
    page.on("response", lambda r: troubles.append(f"{r.status}: {r.url}") if r.status >= 400 else None)


def note_error(message, troubles: list[str]) -> None:
    if message.type == "error" and not _DROPPED.search(message.text):
        troubles.append(f"console: {message.text}")


def note_failure(failure: str, troubles: list[str]) -> None:
    if not _LEFT.search(failure):
        troubles.append(f"failed: {failure}")
