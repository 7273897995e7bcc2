"""Reward servers as other people wrote them: forms of answers, packed explanations, one worker for all."""

import json
import pickle
import socket

import numpy as np
import pytest
import torch

from tests.rewards.servers import Reply, serving
from trainers import reachable as reachable_module
from trainers.config import RunConfig
from trainers.errors import FaultError
from trainers.preflight import obstacles
from trainers.rewards import load_reward
from trainers.rewards.server import read_scores


@pytest.mark.parametrize(
    "scores",
    [np.array([[0.1], [0.2], [0.3]]), [[0.1], [0.2], [0.3]], np.array([0.1, 0.2, 0.3]), (0.1, 0.2, 0.3)],
    ids=["column", "lists of one", "array", "tuple"],
)
@pytest.mark.parametrize("key", ["scores", "outputs", "rewards"])
def test_one_number_an_image_is_read_in_every_form(scores, key):
    assert read_scores(pickle.dumps({key: scores}), 3, "pickle") == pytest.approx([0.1, 0.2, 0.3])
    plain = scores.tolist() if hasattr(scores, "tolist") else scores
    assert read_scores(json.dumps({key: plain}).encode(), 3, "json") == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    "told",
    [
        pickle.dumps("Traceback: no such class"),
        pickle.dumps({"error": "Traceback: no such class"}),
        json.dumps({"detail": "Traceback: no such class"}).encode(),
        b"Traceback: no such class",
    ],
    ids=["pickled text", "pickled record", "JSON", "plain"],
)
def test_an_explanation_is_quoted_without_its_packing(told):
    with serving(lambda body, headers: Reply(told, status=500)) as running:
        protocol = "json" if told[:1] == b"{" else "pickle"
        settings = {"server_url": running.address, "server_protocol": protocol, "endpoint_retries": 0}
        reward = load_reward("server", config=RunConfig(**settings))
        with pytest.raises(FaultError) as error:
            reward(torch.rand(3, 3, 8, 8), ["a", "b", "c"])
    assert 'and says "Traceback: no such class"' in str(error.value)


def test_a_server_that_is_busy_is_there_and_one_that_is_not_is_not(monkeypatch):
    """A socket that takes connections and answers nothing, as a server with one worker at work does."""
    monkeypatch.setattr(reachable_module, "TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"http://127.0.0.1:{busy.getsockname()[1]}/busy"
        assert obstacles(RunConfig(reward="server", server_url=address)) == []
        assert reachable_module.listening(address) and not reachable_module.reachable(address)
    address = f"http://127.0.0.1:{free_port()}/gone"
    assert "Nothing answers" in obstacles(RunConfig(reward="server", server_url=address))[0]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
