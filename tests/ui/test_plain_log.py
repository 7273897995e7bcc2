"""Nothing that a visitor sends reaches a terminal as anything but text."""

import io
import logging
import unicodedata

import pytest
from gradio import queueing, route_utils, routes

from rsm_app.ui import access, plain_log, proxies, same_origin
from tests.ui.asking import asker, run_apart

COMMANDS = ["\x9b31m", "\x9b2J", "\x85", "\x90q\x9c", "\x1b]0;mine\x07", "\x7f\x08\x08", "\x00"]


@pytest.fixture
def plain(monkeypatch, capsys):
    """The log as the app writes it, to standard error."""
    written = io.StringIO()
    for module in (queueing, route_utils, routes):
        monkeypatch.setattr(module, "traceback", module.traceback)
    before = logging.getLogRecordFactory()
    plain_log.write_plainly()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(written)])
    monkeypatch.setattr(access, "_logged", set())
    monkeypatch.setattr(proxies, "_logged_already", set())
    yield lambda: written.getvalue() + capsys.readouterr().err
    logging.setLogRecordFactory(before)


def is_text(written):
    """Whether a terminal only shows what was written."""
    return not [one for one in written if unicodedata.category(one) == "Cc" and one not in "\n\t"]


@pytest.mark.parametrize("command", COMMANDS, ids=ascii)
def test_what_a_request_says_is_text_in_the_log_and_in_its_answer(plain, command):
    sent = []

    async def send(message):
        sent.append(message)

    headers = {"origin": f"https://{command}.example", "host": f"a{command}b.example"}
    scope = asker("10.0.0.7", **headers).request.scope | {"method": "POST", "path": f"/{command}"}
    run_apart(same_origin.SameOrigin(None)(scope, None, send))
    access.owner_of(asker("10.0.0.7", host=f"a{command}b.example"))
    proxies.shared_by_all(asker(f"10.0.0.7{command}", x_forwarded_for=command).request.scope)
    written = plain()
    assert "Refused: a page of" in written and "The proxy at" in written and is_text(written), ascii(written)[
        :500
    ]
    assert sent[0]["status"] == 403 and is_text(sent[1]["body"].decode())


@pytest.mark.parametrize("command", COMMANDS, ids=ascii)
def test_an_exception_s_own_words_are_text_wherever_it_is_printed(plain, command):
    logger = logging.getLogger("a.test")
    for module in (queueing, route_utils, routes):
        try:
            raise ValueError(f"File {command} is not in the cache folder.")
        except ValueError:
            module.traceback.print_exc()
            logger.exception("Exception at %s", command)
            logger.error(command, exc_info=True)
    written = plain()
    assert written.count("is not in the cache folder.") == 18 and is_text(written), ascii(written)[:500]


def test_a_record_of_the_log_is_else_as_it_was(plain):
    logging.getLogger("a.test").warning("%s of %d: %r", "one", 2, {"x": "é"})
    logging.getLogger("a.test").warning("100 % of it", exc_info=True)
    written = plain()
    assert written.startswith("one of 2: {'x': 'é'}\n100 % of it\n")
