"""What the publish page shows, by itself: the card is inert, sentences fit, tokens stay with their owner."""

import contextlib
import dataclasses
import io
import re
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from rsm_app.hub.bundle import PAIRS_FILE, Bundle, BundleFile
from rsm_app.hub.push_status import STATES, PushStatus
from rsm_app.hub.target import Changes, RemoteFile, Target
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import hub_access, importing, publish_parts
from rsm_app.ui.card_view import card_html, files_html, target_html
from rsm_app.ui.hub_access import can_sign_in, from_this_machine, standing_token, who_html
from rsm_app.ui.push_view import push_html
from tests.ui.asking import asker
from trainers.errors import FaultError, InputError

EVIL = '<img src=x onerror="alert(1)">'


def drawn(side=8):
    file = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(file, "PNG")
    return file.getvalue()


def part(path, content):
    return BundleFile(path, len(content), content)


@pytest.fixture
def bundle():
    card = (
        f"---\nlicense: mit\n---\n\n# a lora\n\n{EVIL}\n\n<Gallery />\n\n![two pictures](images/grid.png)\n\n"
        "[a page](javascript:alert(1)) and [another](https://example.org)\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    pair = '{"prompt": "a \\"red\\" <b>circle", "after": "images/01-after.png"}\n'
    files = (
        part("README.md", card.encode()),
        part(PAIRS_FILE, pair.encode()),
        part("images/01-after.png", drawn()),
        part("images/grid.png", drawn(400)),
    )
    return Bundle("ann/x", files, card, {})


def test_the_card_shows_its_pictures_and_no_markup_of_others(bundle):
    html = card_html(bundle)
    assert EVIL not in html and "&lt;img src=x" in html
    assert 'href="javascript:' not in html and 'href="https://example.org"' in html
    assert 'alt="a &quot;red&quot; &lt;b&gt;circle"' in html and 'alt="two pictures"' in html
    sources = re.findall(r'<img src="([^"]*)"', html)
    assert len(sources) == 2 and all(source.startswith("data:image/") for source in sources)
    assert "<Gallery" not in html and "<h3>a lora</h3>" in html and "<h1" not in html
    assert "<td>1</td>" in html and "license: mit" in html


def test_a_prompt_that_ends_like_metadata_does_not_cut_the_card(bundle):
    lines = "---\nwidget:\n- text: a red circle ---\nlicense: mit\n---\n\n# a lora\n\n---\n\nthe end\n"
    html = card_html(dataclasses.replace(bundle, card=lines))
    page, _, metadata = html.partition("<details")
    assert "license: mit" in metadata and "license" not in page
    assert "<h3>a lora</h3>" in page and "the end" in page


def test_large_pictures_are_sent_small(bundle):
    grid = bundle.file("images/grid.png")
    assert grid.size > 60_000
    assert len(card_html(bundle)) < grid.size * 4 / 3


def test_files_say_what_becomes_of_them(bundle):
    there = {"images/12-after.png": RemoteFile(9, "x", True), "README.md": RemoteFile(1, "y", False)}
    new = ("images/grid.png", "images/01-after.png")
    told = Changes(new, ("README.md",), (PAIRS_FILE,), ("images/12-after.png",))
    target = Target("ann/x", True, False, True, "abcdef0123", there)
    html = files_html(bundle, target, told)
    rows = dict(re.findall(r'<th scope="row">([^<]+)</th>.*?<td class="[^"]+">([^<]+)</td>', html))
    assert rows["images/12-after.png"] == "removed" and rows["images/grid.png"] == "new"
    assert rows["README.md"] == "changed" and rows[PAIRS_FILE] == "as it is"
    words = target_html(target, told, private=True)
    assert "stays public" in words and "2 new, 1 changed, 1 removed, 1 as it is" in words


def test_a_repository_in_every_state_gets_its_sentence():
    none = Changes((), (), ("a",), ())
    assert "may not be written" in target_html(Target("bob/x"), none, False)
    assert "private" in target_html(Target("ann/x", may_write=True), Changes(("a",), (), (), ()), True)
    whole = Target("ann/x", True, True, True, "abc", {"a": RemoteFile(1, "y", False)})
    assert "nothing would change" in target_html(whole, none, False)
    assert "<b>ann/&lt;x" in target_html(Target("ann/<x"), none, False)


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_a_push_is_shown_inert(state):
    status = PushStatus(
        state=state, phase="upload", repo=EVIL, message=EVIL, error=EVIL, remedy=EVIL,
        url="javascript:alert(1)", commit="abc", bytes_done=5, bytes_total=10, files_total=2,
    )  # fmt: skip
    html = push_html(status)
    assert f'data-push="{state}"' in html and "<img" not in html and "javascript" not in html


def test_this_machine_s_token_serves_this_machine_alone(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert standing_token(None, asker()).reveal() == "hf_mine"
    assert standing_token(None, asker("::1")) is not None
    away = asker("10.0.0.7")
    proxied = asker(**{"x-forwarded-for": "10.0.0.7"})
    assert standing_token(None, away) is None and standing_token(None, proxied) is None
    assert "only serves whoever sits at it" in who_html("", "", away)
    monkeypatch.setenv("SPACE_ID", "ann/studio")
    assert not from_this_machine(asker()) and standing_token(None, asker()) is None
    signed_in = SimpleNamespace(token="hf_oauth")
    assert standing_token(signed_in, asker()).source == "signed in"


AT_IT = [
    *("127.0.0.1:7860", "127.0.0.1", "127.1.2.3:7860", "localhost:7860", "LOCALHOST:7860", "localhost.:7860"),
    *(
        "studio.localhost:7860",
        "[::1]:7860",
        "0.0.0.0:7860",
        "[::]:7860",
        "[::ffff:127.0.0.1]:7860",
        "[::ffff:7f00:1]:7860",
    ),
]
NOT_AT_IT = [
    *("studio.example", "studio.example:7860", "127.0.0.1.example.com:7860", "localhost.evil:7860"),
    *(
        "127.0.0.1@evil.example",
        "localhost:7860@evil.example",
        "0.0.0.1:7860",
        "[::2]:7860",
        "192.168.1.5:7860",
    ),
    *(
        "10.0.0.7",
        "evil-localhost",
        "[::1].evil.example",
        "127.0.0.1:7860,evil.example",
        "",
        "[fe80::1]:7860",
    ),
]


@pytest.fixture
def machine_s_token(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.delenv("RSM_MACHINE_ACCOUNT", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")


@pytest.mark.parametrize("host", AT_IT)
def test_whoever_sits_at_the_machine_has_its_account_however_the_address_is_written(machine_s_token, host):
    for peer in ("127.0.0.1", "127.0.0.5", "::1", "::ffff:127.0.0.1"):
        for more in ({}, {"origin": f"http://{host}"}, {"origin": "http://localhost:7860"}):
            assert standing_token(None, asker(peer, host=host, **more)).reveal() == "hf_mine"
        for page in ("https://evil.example", "null", "http://127.0.0.1.example.com:7860"):
            assert standing_token(None, asker(peer, host=host, origin=page)) is None
    assert standing_token(None, asker("192.168.1.5", host=host)) is None


@pytest.mark.parametrize("host", NOT_AT_IT)
def test_a_request_for_another_name_has_not_the_machine_s_account(machine_s_token, host):
    for peer in ("127.0.0.1", "::1"):
        for more in ({}, {"origin": f"http://{host}"}, {"origin": "http://127.0.0.1:7860"}):
            assert standing_token(None, asker(peer, host=host, **more)) is None


@pytest.mark.parametrize(
    "header",
    [
        *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "forwarded", "via"),
        *("cf-connecting-ip", "true-client-ip", "x-client-ip", "x-forwarded-port", "x-forwarded-server"),
    ],
)
def test_what_came_through_a_proxy_has_not_the_machine_s_account(machine_s_token, header):
    for value in ("127.0.0.1", "localhost", "for=127.0.0.1", "1.1 here"):
        assert standing_token(None, asker(lines=[(header, value)])) is None


def test_two_hosts_in_one_request_are_none(machine_s_token):
    for other in ("evil.example", "127.0.0.1:7860"):
        assert standing_token(None, asker(lines=[("Host", other)])) is None


@pytest.mark.parametrize("value", ["0", "false", "no", "off", "never"])
def test_the_machine_s_account_can_be_switched_off(machine_s_token, monkeypatch, value):
    monkeypatch.setenv("RSM_MACHINE_ACCOUNT", value)
    assert standing_token(None, asker()) is None
    assert "RSM_MACHINE_ACCOUNT says so" in who_html("", "", asker())
    for again in ("1", "yes", ""):
        monkeypatch.setenv("RSM_MACHINE_ACCOUNT", again)
        assert standing_token(None, asker()) is not None


class Seen(Exception):
    """Leaves a page before it is served, which a login would not survive on this machine."""


def built(monkeypatch, offered):
    monkeypatch.setattr(publish_parts, "can_sign_in", lambda: offered)
    with contextlib.suppress(Seen), gr.Blocks() as demo:
        publish_parts.build_parts()
        raise Seen
    return [type(block).__name__ for block in demo.blocks.values()]


def test_a_login_is_offered_only_where_it_works(monkeypatch):
    assert "LoginButton" not in built(monkeypatch, False) and "LoginButton" in built(monkeypatch, True)
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setenv("OAUTH_CLIENT_ID", "x")
    monkeypatch.setattr(hub_access.importlib.util, "find_spec", lambda name: name)
    assert not can_sign_in(), "at home the library would only play a login"
    monkeypatch.setenv("SPACE_ID", "ann/studio")
    assert can_sign_in()
    monkeypatch.delenv("OAUTH_CLIENT_ID")
    assert not can_sign_in(), "a Space that was made without hf_oauth"


def test_imports_are_given_to_whoever_asks_if_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    store = RunStore(tmp_path / "runs")
    store.root.mkdir()
    full = Supervisor(store, Limits(free_mb=10**9))
    with pytest.raises(FaultError):
        importing.bring(full, "ann/x", "", None, asker(), lambda *_, **__: None)
    roomy = Supervisor(store, Limits(free_mb=0))
    with pytest.raises(InputError, match="spaces"):
        importing.bring(roomy, "ann/x", "hf with spaces", None, asker(), lambda *_, **__: None)
    with pytest.raises(InputError, match="owner/name"):
        importing.bring(roomy, None, "", None, asker(), lambda *_, **__: None)
    assert store.names() == []
