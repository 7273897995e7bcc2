"""A Hub that answers late, or never ends its answer, ends in a sentence; this machine is asked directly."""

import contextlib
import socket
import threading
import time

import httpx2
import pytest
from huggingface_hub import HfApi, get_session

from trainers import failures, hub_client
from trainers.failures import explain
from trainers.hub_client import HubClient
from trainers.models import access

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"


@contextlib.contextmanager
def late(drip):
    """A server that accepts, and then says nothing, or a byte now and then for as long as anybody listens."""
    server, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    def answer(line):
        with contextlib.suppress(OSError), line:
            line.recv(65536)
            line.sendall(HEAD if drip else b"")
            while not over.wait(0.01):
                line.sendall(b" " if drip else b"")

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        over.set()
        server.close()


@pytest.mark.parametrize("drip", [False, True], ids=["silent", "drips"])
def test_an_answer_ends(drip, monkeypatch):
    monkeypatch.setattr(hub_client, "WHOLE_SECONDS", 0.3)
    with late(drip) as address, HubClient(timeout=httpx2.Timeout(0.3)) as client:
        with pytest.raises(httpx2.ReadTimeout):
            client.get(address)
        if drip:  # what is read in pieces may take its time
            with client.stream("GET", address) as answer:
                end = time.monotonic() + 0.6
                assert next(piece for piece in answer.iter_raw() if time.monotonic() > end)


@pytest.mark.parametrize("drip", [False, True], ids=["silent", "drips"])
def test_asking_for_a_model_ends_in_a_sentence(drip, monkeypatch):
    hub_client.install()
    monkeypatch.setattr(hub_client, "WHOLE_SECONDS", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(get_session(), "timeout", httpx2.Timeout(0.3))
    with late(drip) as address:
        error = None
        try:
            HfApi(endpoint=address, token=False).auth_check("owner/model")
        except httpx2.HTTPError as caught:
            error = caught
    assert explain(error) == failures.NETWORK
    assert "cannot be reached (ReadTimeout)" in access._sentence(error, "x", "owner/model", "")


def test_a_hub_on_this_machine_is_asked_without_a_proxy(monkeypatch):
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    client = hub_client._factory(HubClient, {})()
    for address, direct in (
        ("http://127.0.0.1:1/x", True),
        ("http://localhost", True),
        ("https://hub.example", False),
    ):
        assert (client._transport_for_url(httpx2.URL(address)) is client._transport) is direct
