"""What the tests' own watch over a page takes for a trouble, and what it lets pass."""

import pytest

from tests.ui.conftest import watch

PAGE = "<body><img src='http://pictures.test/a.png'></body>"


@pytest.fixture
def unwatched(browser):
    """A page outside the fixture that asserts the absence of troubles."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def watched(unwatched, troubles):
    watch(unwatched, troubles)
    unwatched.route("http://page.test/**", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
    return unwatched


def test_a_picture_still_on_its_way_when_the_page_is_left_is_no_trouble(watched, troubles):
    watched.route("http://pictures.test/**", lambda route: None)  # never answered
    watched.goto("http://page.test/", wait_until="commit")
    watched.wait_for_selector("img", state="attached")
    with watched.expect_event("requestfailed") as dropped:
        watched.goto("http://page.test/left", wait_until="commit")
    assert dropped.value.failure == "net::ERR_ABORTED" and not troubles


@pytest.mark.parametrize("error", ["connectionreset", "failed", "timedout", "blockedbyclient"])
def test_a_picture_whose_connection_is_lost_is_one(watched, troubles, error):
    watched.route("http://pictures.test/**", lambda route: route.abort(error))
    watched.goto("http://page.test/", wait_until="load")
    assert any("http://pictures.test/a.png" in trouble for trouble in troubles)


def test_a_picture_that_the_server_refuses_is_one(watched, troubles):
    watched.route("http://pictures.test/**", lambda route: route.fulfill(status=404, body=""))
    watched.goto("http://page.test/", wait_until="load")
    assert "404: http://pictures.test/a.png" in troubles


def test_an_error_on_the_console_is_one(watched, troubles):
    watched.goto("http://page.test/", wait_until="commit")
    with watched.expect_event("pageerror"):
        watched.evaluate("console.error('broken'); setTimeout(() => { throw new Error('thrown') })")
    assert any("broken" in trouble for trouble in troubles)
    assert any("thrown" in trouble for trouble in troubles)
