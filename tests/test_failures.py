"""Every known kind of failure is one sentence that says what to do; the errors are real ones."""

import ctypes
import errno
import importlib.machinery
import os
import socket
import struct
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi

from rsm_app.jobs.store import Run
from tests.faults.watched_reward import registered
from trainers import failures
from trainers.cli import main
from trainers.errors import FaultError
from trainers.failures import ENDPOINT, OWN_CODE, TOKEN, explain, known_cause, out_of_memory
from trainers.machine import quiet_libraries
from trainers.rewards import REWARDS
from trainers.rewards.contract import Reward
from trainers.rewards.mixture import Mixture, Part


def load_broken(device="cpu"):
    raise KeyError("no such thing")


def caught(action) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011 (what it is, is what the test asks)
        action()
    return error.value


def code_of_its_own():
    from transformers.dynamic_module_utils import resolve_trust_remote_code

    quiet_libraries()  # as every command that loads a model does: nobody is asked at the terminal
    resolve_trust_remote_code(None, "someone/model", has_local_code=False, has_remote_code=True)


def test_nobody_is_told_or_asked_to_run_the_code_of_a_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    error = caught(code_of_its_own)
    assert "trust_remote_code" in str(error), "the library's own advice"
    wrapped = caught(lambda: _raise_from(FaultError("The tiny autoencoder could not be loaded."), error))
    told = explain(error) + str(known_cause(wrapped))
    assert "trust_remote_code" not in told and "never run here" in told
    monkeypatch.setattr("trainers.cli._list", lambda options: code_of_its_own())
    monkeypatch.setenv("RSM_DEBUG", "1")
    assert main(["list"]) == 1
    told = capsys.readouterr().err
    assert "trust_remote_code" not in told and "Traceback" in told and OWN_CODE in told
    run = Run(tmp_path / "20260101-000000-aaaaaa")
    run.path.mkdir()
    run.worker_log.write_text(f"Loading.\nValueError: {error}\n")
    assert "trust_remote_code" not in "\n".join(run.log_tail()) and OWN_CODE in run.log_tail()


def _raise_from(error, cause):
    raise error from cause


def test_a_closed_file_and_a_read_only_system_are_named_without_their_folder():
    for number in (errno.EACCES, errno.EROFS, errno.EPERM):
        told = explain(OSError(number, os.strerror(number), "/somebody/secret/place/model.json"))
        assert "model.json may not be read or written" in told and "secret" not in told


@pytest.mark.parametrize("named", [5, None, b"/somebody/model.json", "/somebody/model.json"])
def test_whatever_names_a_closed_file_is_no_further_failure(named):
    told = explain(PermissionError(errno.EACCES, "Permission denied", named))
    assert ("model.json may not be read" if isinstance(named, str | bytes) else "PermissionError") in told


def test_an_address_without_a_scheme_is_no_fault_of_the_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for address in ("127.0.0.1:9000", "hub.example", "htp://hub.example"):
        error = caught(lambda address=address: HfApi(endpoint=address, token=False).model_info("a/b"))
        assert explain(error) == ENDPOINT, address


@pytest.mark.parametrize("token", ["hf_go\u00a0od", "\u201chf_good\u201d", "hf_gööd"])
def test_a_token_that_cannot_be_sent_is_no_fault_of_the_network(token):
    error = caught(lambda: HfApi(endpoint="http://127.0.0.1:9", token=token).whoami())
    assert explain(error) == TOKEN and token not in explain(error)


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


def unmappable(folder):
    """Return a shared library whose last segment asks for more memory than there are addresses."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    known = next(line.split()[-1] for line in lines if line.endswith("/libc.so.6"))
    data = bytearray(Path(known).read_bytes())
    start, width, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    headers = range(start, start + width * count, width)
    last = [at for at in headers if struct.unpack_from("<I", data, at)[0] == 1][-1]  # 1: PT_LOAD
    struct.pack_into("<Q", data, last + 40, 2**50)  # p_memsz
    file = folder / f"unmappable{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    file.write_bytes(data)
    return file


def test_a_library_that_finds_no_room_says_what_may_lack(tmp_path, monkeypatch):
    file = unmappable(tmp_path)
    loaded = caught(lambda: ctypes.CDLL(str(file)))
    monkeypatch.syspath_prepend(tmp_path)
    imported = caught(lambda: importlib.import_module("unmappable"))
    assert isinstance(loaded, OSError) and isinstance(imported, ImportError)
    assert explain(loaded) == explain(imported) == failures.LIBRARY
    assert explain(ImportError("cannot import name 'a'")).startswith("The run ended with an unexpected")


@pytest.mark.parametrize(
    ("words", "memory"),
    [
        ("could not create a primitive", True),
        ("std::bad_alloc", True),
        ("could not create a primitive descriptor for a matmul primitive", False),
    ],
)
def test_a_library_without_room_for_its_buffers_lacks_memory(words, memory):
    assert out_of_memory(RuntimeError(words)) == memory


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
