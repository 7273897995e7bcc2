"""Every form of an address is listened at or refused in a sentence, whatever proxies are named."""

import socket
import urllib.request

import gradio as gr
import pytest
from gradio import blocks, networking

from rsm_app.ui.access import owner_of
from rsm_app.ui.addresses import call_itself_directly, link_to, listening_host
from rsm_app.ui.hub_access import from_this_machine
from rsm_app.ui.same_origin import is_foreign
from tests.ui.asking import asker
from tests.ui.server import free_port
from trainers.errors import InputError

NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PROXIES = [
    {"http_proxy": "http://127.0.0.1:9"},
    {"HTTP_PROXY": "http://127.0.0.1:9", "no_proxy": "corp.example"},
    {"all_proxy": "socks5h://127.0.0.1:9"},
    {"ALL_PROXY": "socks4://127.0.0.1:9"},
]


@pytest.fixture
def direct(monkeypatch):
    for module in (blocks, networking):
        monkeypatch.setattr(module, "httpx", module.httpx)  # put back afterwards
    call_itself_directly()


@pytest.mark.parametrize("proxies", PROXIES, ids=str)
def test_a_server_starts_where_proxies_are_named(direct, monkeypatch, proxies):
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    with gr.Blocks(analytics_enabled=False) as demo:
        gr.HTML("here")
    port = free_port()
    demo.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
    try:
        assert NO_PROXY.open(f"http://127.0.0.1:{port}/", timeout=20).status == 200
    finally:
        demo.close()


@pytest.mark.parametrize(
    ("host", "taken_as"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("localhost", "localhost"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("::", "[::]"),
    ],
)
def test_an_address_of_this_machine_is_listened_at(host, taken_as):
    assert listening_host(host, free_port()) == taken_as


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "2001:db8::1", "nobody.invalid", "a b", "x" * 300, "http://localhost"]
)
def test_any_other_is_refused_in_a_sentence(host):
    with pytest.raises(InputError, match="is no address of this machine. Listen at 127.0.0.1"):
        listening_host(host, free_port())


@pytest.mark.parametrize(
    ("host", "link"),
    [
        ("0.0.0.0", "http://127.0.0.1:7860"),
        ("[::]", "http://[::1]:7860"),
        ("[0:0::0]", "http://[::1]:7860"),
        ("127.0.0.1", "http://127.0.0.1:7860"),
        ("localhost", "http://localhost:7860"),
        ("[::1]", "http://[::1]:7860"),
    ],
)
def test_the_link_that_is_printed_can_be_opened_and_is_who_sits_at_the_machine(host, link):
    assert link_to(host, 7860) == link
    opened = asker(host=link.partition("//")[2])
    assert owner_of(opened) == "127.0.0.1" and from_this_machine(opened)


def test_who_opens_all_addresses_is_who_sits_at_the_machine_and_no_foreign_page_is():
    for host in ("0.0.0.0:7860", "[::]:7860"):
        own = asker(host=host, origin=f"http://{host}")
        assert owner_of(own) == "127.0.0.1" and from_this_machine(own) and not is_foreign(own.request.scope)
        for page in ("https://evil.example", "http://0.0.0.0:3000", "null", "http://127.0.0.1:7860"):
            foreign = asker(host=host, origin=page)
            assert is_foreign({**foreign.request.scope, "server": ("127.0.0.1", 7860)})
        assert not from_this_machine(asker("192.168.1.5", host=host))
        assert not from_this_machine(asker(host=host, origin="https://evil.example"))


def test_a_port_in_use_is_said_to_be_in_use():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            listening_host("127.0.0.1", other.getsockname()[1])
