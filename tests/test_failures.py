"""Every known kind of failure is one sentence that says what to do; the errors are real ones."""

import socket
import urllib.request
from dataclasses import replace

import pytest
import torch

from tests.faults.watched_reward import registered
from trainers import failures
from trainers.cli import main
from trainers.errors import FaultError
from trainers.failures import explain, known_cause, out_of_memory
from trainers.rewards import REWARDS
from trainers.rewards.contract import Reward
from trainers.rewards.mixture import Mixture, Part


def load_broken(device="cpu"):
    raise KeyError("no such thing")


def caught(action) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011 (what it is, is what the test asks)
        action()
    return error.value


def no_memory():
    torch.empty(2**60, dtype=torch.uint8)


def no_memory_below_other_words():
    try:
        no_memory()
    except RuntimeError as error:
        raise ValueError("the layer failed") from error


def full_disk():
    with open("/dev/full", "w", encoding="utf-8") as device:
        device.write("x")


def closed_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5)


def offline_hub():
    from huggingface_hub import hf_hub_download

    hf_hub_download("nobody/nothing", "config.json", local_files_only=True)


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (no_memory, failures.MEMORY),
        (no_memory_below_other_words, failures.MEMORY),
        (full_disk, failures.DISK),
        (closed_port, failures.NETWORK),
        (offline_hub, failures.NETWORK),
    ],
)
def test_known_failures(action, sentence):
    error = caught(action)
    assert explain(error) == known_cause(error) == sentence
    assert out_of_memory(error) == (sentence == failures.MEMORY)


def test_an_unknown_failure_keeps_its_kind_and_words_on_one_line():
    assert explain(KeyError("a\nb")).startswith("The run ended with an unexpected KeyError")
    assert "\n" not in explain(ValueError("one\ntwo")) and known_cause(ValueError("x")) is None
    assert explain(FaultError("Said already.")) == "Said already."


class Raises(Reward):
    """A reward that fails as told."""

    def __init__(self, action):
        self.action = action

    def __call__(self, images, prompts, metadata=None):
        return self.action()


def test_a_reward_that_raises_is_named_and_memory_stays_a_lack_of_memory():
    images = torch.zeros(1, 3, 8, 8)

    def call(action):
        return caught(
            lambda: Mixture([Part(replace(REWARDS.get("brightness"), name="mine"), 1.0, Raises(action))])(
                images, ["a"]
            )
        )

    broken = call(lambda: {}["colour"])
    assert isinstance(broken, FaultError) and str(broken) == "The reward 'mine' failed. KeyError: 'colour'"
    assert failures.NETWORK in str(call(closed_port))
    assert out_of_memory(call(no_memory)) and not isinstance(call(no_memory), FaultError)


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_fault_of_a_command_without_a_log_is_a_sentence_too(debug, monkeypatch, capsys):
    monkeypatch.setenv("RSM_DEBUG", debug)
    with registered("broken", "tests.test_failures:load_broken"):
        assert main(["spread", "--reward", "broken", "--estimator", "grpo"]) == 1
    told = capsys.readouterr().err
    assert "Error: The command ended with an unexpected KeyError: 'no such thing' RSM_DEBUG=1 shows" in told
    assert ("Traceback" in told) == bool(debug) and (debug or told.count("\n") == 1)
