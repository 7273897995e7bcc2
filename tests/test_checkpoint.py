"""Checkpoints outlive whatever ends their writing: a kill or a full disk at any point leaves a whole one."""

import contextlib
import errno
import os
import tempfile

import pytest
import torch

from trainers.checkpoint import Checkpoint, Progress, load_latest, save_checkpoint
from trainers.errors import FaultError
from trainers.run_folder import RunFolder

CALLS = ("open", "fdopen", "fsync", "chmod", "replace", "unlink")


class Killed(BaseException):
    """The process ends here: nothing below the point is cleaned up by the code under test."""


def checkpoint(updates, seconds):
    """A checkpoint whose tensors tell which one it is."""
    lora = {"layer.lora_A": torch.full((2, 3), float(seconds))}
    moments = {0: {"exp_avg": torch.arange(6.0)}}
    return Checkpoint(Progress(updates=updates, used_seconds=seconds), lora, moments)


class System:
    """Lets so many calls to the operating system pass, then fails one."""

    def __init__(self, patch, passing, error):
        self.left, self.error, self.failed = passing, error, False
        for owner, names in ((os, CALLS), (tempfile, ("mkstemp",))):
            for name in names:
                patch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, function):
        def call(*values, **named):
            self.left -= 1
            if self.left == -1:
                self.failed = True
                raise self.error
            return function(*values, **named)

        return call


@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize(
    ("there", "updates"),
    [((0,), 0), ((0,), 1), ((2, 3), 3), ((2, 3), 4)],  # the same name again with other clocks, or a new one
)
def test_a_write_that_ends_at_any_point_leaves_a_whole_checkpoint(
    tmp_path, monkeypatch, error, there, updates
):
    for passing in range(100):
        folder = RunFolder(tmp_path / str(passing))
        for earlier in there:
            save_checkpoint(folder, checkpoint(earlier, 10.0 + earlier))
        with monkeypatch.context() as patch:
            system = System(patch, passing, error)
            with contextlib.suppress(Killed, FaultError):
                save_checkpoint(folder, checkpoint(updates, 99.0))
        found = load_latest(folder)
        assert found.progress.used_seconds in (10.0 + there[-1], 99.0), f"after {passing} calls"
        assert found.lora["layer.lora_A"][0, 0] == found.progress.used_seconds
        if not system.failed:
            break
    assert passing > 4 and found.progress.used_seconds == 99.0


def test_two_are_kept_and_come_back_as_they_were(tmp_path):
    folder = RunFolder(tmp_path)
    for updates in (1, 2, 3):
        save_checkpoint(folder, checkpoint(updates, updates))
    assert sorted(path.stem for path in folder.checkpoints.iterdir()) == ["00000002", "00000003"]
    found, written = load_latest(folder), checkpoint(3, 3)
    assert found.progress == written.progress
    assert torch.equal(found.lora["layer.lora_A"], written.lora["layer.lora_A"])
    assert torch.equal(found.optimiser[0]["exp_avg"], torch.arange(6.0))


def test_a_single_changed_bit_is_noticed_wherever_it_is(tmp_path):
    folder = RunFolder(tmp_path)
    path = save_checkpoint(folder, checkpoint(1, 1.0))
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(FaultError, match="Every checkpoint"):
            load_latest(folder)
    path.write_bytes(whole)
    assert load_latest(folder).progress.updates == 1
