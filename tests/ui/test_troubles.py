"""What the tests' own watch over a page takes for a trouble, and what it lets pass, with a real server."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.ui.conftest import watch


class Pictures(BaseHTTPRequestHandler):
    """Serves pages with one picture, ``/page/HOW``, and fails to serve that picture in the way asked for."""

    def do_GET(self):  # noqa: N802 (the library's name)
        kind, how = self.path.strip("/").split("/")
        if kind == "page":
            self._answer(200, "text/html", f"<link rel=icon href=data:,><img src=/picture/{how}>".encode())
        elif how == "late":
            self.server.left.wait(60)
        elif how == "refused":
            self._answer(404, "text/plain", b"")
        elif how == "cut":
            self._answer(200, "image/png", b"half", length=1000)

    def _answer(self, status, kind, body, length=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.left = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.left.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def watched(browser, troubles):
    """A watched page outside the fixture that asserts the absence of troubles."""
    context = browser.new_context()
    page = context.new_page()
    watch(page, troubles)
    yield page
    context.close()


def test_a_picture_still_on_its_way_when_the_page_is_left_is_no_trouble(watched, troubles, address):
    with watched.expect_request("**/picture/late"):
        watched.goto(f"{address}/page/late", wait_until="commit")
    with watched.expect_event("requestfailed") as dropped:
        watched.goto("about:blank")
    assert dropped.value.failure == "net::ERR_ABORTED" and not troubles


@pytest.mark.parametrize("how", ["closed", "cut"])
def test_a_picture_whose_connection_is_lost_is_one(watched, troubles, address, how):
    watched.goto(f"{address}/page/{how}", wait_until="load")
    assert any(trouble.startswith(f"failed: {address}/picture/{how}") for trouble in troubles)


def test_a_picture_that_the_server_refuses_is_one(watched, troubles, address):
    watched.goto(f"{address}/page/refused", wait_until="load")
    assert f"404: {address}/picture/refused" in troubles


def test_an_error_on_the_console_is_one(watched, troubles):
    with watched.expect_event("pageerror"):
        watched.evaluate("console.error('broken'); setTimeout(() => { throw new Error('thrown') })")
    assert any("broken" in trouble for trouble in troubles)
    assert any("thrown" in trouble for trouble in troubles)
