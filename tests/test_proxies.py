"""Proxies of the environment: never asked for this machine itself, and explained where unusable."""

import os
import subprocess
import sys

import pytest

from tests.rewards.servers import Reply, serving
from trainers import failures, proxies, reachable
from trainers.errors import FaultError
from trainers.rewards.endpoint import Endpoint

DEAD = {"http_proxy": "http://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9", "no_proxy": "corp.example"}


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:1/x", True),
        ("http://127.9.9.9", True),
        ("https://localhost:8443", True),
        ("http://LOCALHOST.:80", True),
        ("http://judge.localhost", True),
        ("http://[::1]:9", True),
        ("http://192.168.1.7", False),
        ("https://huggingface.co", False),
        ("http://localhost.example.org", False),
        ("http://[bad", False),
        ("", False),
    ],
)
def test_what_is_on_this_machine(address, here):
    assert proxies.is_here(address) is here


@pytest.mark.parametrize("named", [DEAD, {"all_proxy": "socks5h://127.0.0.1:9"}], ids=str)
def test_an_endpoint_on_this_machine_is_asked_directly(named, monkeypatch):
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(reachable, "_answers", {})
    with serving(lambda body, headers: Reply(b"7")) as server:
        assert reachable.reachable(server.address)
        endpoint = Endpoint("server", server.address, timeout=20, retries=0)
        assert endpoint.post(b"", "text/plain", lambda body: body) == b"7"


@pytest.mark.parametrize(
    ("proxy", "sentence"),
    [("socks5h://127.0.0.1:9", proxies.SOCKS), ("socks4://127.0.0.1:9", proxies.UNUSABLE)],
)
def test_an_endpoint_elsewhere_behind_a_proxy_that_cannot_be_used_is_told(proxy, sentence, monkeypatch):
    monkeypatch.setenv("all_proxy", proxy)
    monkeypatch.setattr(reachable, "_answers", {})
    assert not reachable.reachable("http://judge.example")
    with pytest.raises(FaultError) as caught:
        Endpoint("judge", "http://judge.example/v1", timeout=1, retries=0)
    assert sentence in str(caught.value)
    assert failures.explain(caught.value.__cause__) == sentence


def test_a_proxy_that_cannot_be_used_is_hidden_while_libraries_are_imported_and_then_back():
    """Gradio makes a client of httpx as it is imported, which fails with a SOCKS proxy."""
    words = (
        "import os\nfrom trainers.proxies import without_unusable_proxies\n"
        "with without_unusable_proxies():\n    import gradio\n"
        "print(os.environ['ALL_PROXY'], os.environ['http_proxy'])"
    )
    own = {"ALL_PROXY": "socks5://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", words], env={**os.environ, **own}, capture_output=True, text=True
    )
    assert done.stdout.split() == list(own.values()), done.stderr


def test_a_proxy_that_can_be_used_stays(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with proxies.without_unusable_proxies():
        assert os.environ["http_proxy"] == "http://127.0.0.1:9"
