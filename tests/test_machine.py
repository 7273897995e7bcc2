"""A run goes on with the precision and the threads that it began with, on whatever machine it is resumed."""

import os

import pytest
import torch

from tests.faults.sessions import session, tiny_config
from trainers import machine
from trainers.config import RunConfig
from trainers.machine import choose_dtype, differentiable_attention, settled
from trainers.run_folder import RunFolder, read_json

FIRST = {"device": "cpu", "dtype": "float32", "threads": 3}


@pytest.fixture
def processor(monkeypatch):
    """Let this machine be one with so many cores that does or does not multiply bfloat16."""

    def become(cores, bfloat16):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
        monkeypatch.setattr(machine, "native_bfloat16", lambda: bfloat16)

    return become


def settings_of(config):
    return config.dtype, config.threads


def test_what_is_left_to_the_machine_is_decided_once(processor, tmp_path):
    record = tmp_path / "machine.json"
    processor(3, False)
    assert settings_of(settled(RunConfig(), "cpu", record)) == ("float32", 3)
    assert read_json(record) == FIRST
    processor(1, True)
    later = settled(RunConfig(), "cpu", record)
    assert settings_of(later) == ("float32", 3) and choose_dtype(later, "cpu") == torch.float32
    assert settings_of(settled(RunConfig(), "cpu", tmp_path / "another")) == ("bfloat16", 1)


def test_what_is_asked_for_counts_more(processor, tmp_path):
    record = tmp_path / "machine.json"
    processor(3, False)
    for _ in range(2):
        config = settled(RunConfig(threads=2, dtype="bfloat16"), "cpu", record)
        assert settings_of(config) == ("bfloat16", 2)


def test_another_kind_of_device_has_a_precision_of_its_own(processor, tmp_path):
    record = tmp_path / "machine.json"
    record.write_text('{"device": "cuda", "dtype": "float16", "threads": 3}')
    processor(8, False)
    assert settings_of(settled(RunConfig(), "cpu", record)) == ("float32", 3)


DAMAGED = ["", "[]", '{"device": "cpu", "dtype": "float8", "threads": -1}', '{"dtype": 5, "threads": true}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_made_anew(content, processor, tmp_path):
    record = tmp_path / "machine.json"
    record.write_text(content)
    processor(3, False)
    assert settings_of(settled(RunConfig(), "cpu", record)) == ("float32", 3)
    assert read_json(record) == FIRST


def test_a_resumed_session_works_and_says_so(processor, tmp_path, restored_threads):
    run = tmp_path / "run"
    folder = RunFolder(run)

    def stop(status):
        if status.phase == "baseline" and status.state == "running":
            folder.request_stop()

    processor(2, False)
    assert session(run, tiny_config(threads=0, dtype="auto"), stop).run().state == "stopped"
    assert torch.get_num_threads() == 2
    processor(1, True)
    assert session(run, listener=stop).run().state == "stopped"
    assert torch.get_num_threads() == 2
    told = [line for line in folder.log.read_text().splitlines() if "precision" in line]
    assert len(told) == 2 and all("precision torch.float32, 2 threads" in line for line in told)
    assert told[1].endswith("as when the run began") and "began" not in told[0]


def fused() -> bool:
    return torch.backends.cuda.flash_sdp_enabled()


def test_attention_is_as_it_was_when_the_last_of_several_threads_leaves():
    """The switch is the process's: whoever came second would find it switched and give that back."""
    first, second = (differentiable_attention(torch.device("cpu")) for _ in range(2))
    assert fused()
    first.__enter__()
    second.__enter__()
    assert not fused()
    first.__exit__(None, None, None)
    assert not fused(), "the second still differentiates"
    second.__exit__(None, None, None)
    assert fused()
