"""Training cut into calls with a deadline: the parts give what one long session gives, bit for bit."""

import math
import os

import pytest

from tests.faults.sessions import same, session, tiny_config
from trainers.chunks import train_chunk
from trainers.errors import InputError
from trainers.interruption import Interruption
from trainers.opening import start
from trainers.run_folder import RunFolder
from trainers.session import Session

SHORT = 2.0
UPDATES = 4


def in_chunks(path, config) -> list:
    """Train chunk after chunk, with more time for each where the machine is too slow; return the statuses."""
    start(path, config)
    seconds, statuses = SHORT, []
    while not statuses or statuses[-1].state == "interrupted":
        assert seconds < 600, "the chunks get nowhere"
        try:
            statuses.append(train_chunk(path, seconds))
        except InputError as refusal:
            assert "too few" in str(refusal)
            seconds *= 1.5
    return statuses


@pytest.mark.parametrize("estimator", ["rsm_zeroth_order_flow", "rsm_first_order_flow"])
def test_chunks_give_the_uninterrupted_run(estimator, tmp_path):
    config = tiny_config(estimator, max_updates=UPDATES, updates_per_rollout=2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert session(whole, config).run().state == "succeeded"
    statuses = in_chunks(cut, config)
    assert len(statuses) >= 2 and statuses[-1].state == "succeeded"
    same(cut, whole)


def test_a_chunk_without_time_says_so_and_harms_nothing(tmp_path):
    folder = start(tmp_path / "run", tiny_config())
    with pytest.raises(InputError, match="1 seconds are too few"):
        train_chunk(folder.path, 1.0)
    assert folder.status().state == "interrupted" and not folder.status().error
    with pytest.raises(InputError, match="holds no run"):
        train_chunk(tmp_path / "none", 60.0)


def test_a_stop_ends_the_chunks_and_a_finished_run_gets_no_more(tmp_path):
    folder = start(tmp_path / "run", tiny_config(max_updates=1))

    def stop_in_the_baseline(status):
        if status.phase == "baseline" and status.state == "running":
            folder.request_stop()

    assert train_chunk(folder.path, 600.0, stop_in_the_baseline).state == "stopped"
    assert train_chunk(folder.path, 600.0).state == "succeeded"
    assert RunFolder(folder.path).read_report()["updates"] == 1
    with pytest.raises(InputError, match="already finished"):
        train_chunk(folder.path, 600.0)
    assert train_chunk(folder.path, 600.0, limits={"max_updates": 2}).state == "succeeded"
    assert RunFolder(folder.path).read_report()["updates"] == 2


class AfterOneUpdate(Interruption):
    """The end of a chunk's time, once an update is done."""

    @property
    def seconds_left(self):
        return -1.0 if self._folder.read_metrics() else math.inf


def test_a_stop_between_two_chunks_is_obeyed_by_the_next_with_all_its_results(tmp_path):
    """However old the request is: ZeroGPU works on every chunk in a process that is younger."""
    config = tiny_config(max_updates=0)
    folder = start(tmp_path / "run", config)
    Session(folder, config, None, AfterOneUpdate(folder), age=0.0).run()
    assert folder.status().state == "interrupted"
    folder.request_stop()
    os.utime(folder.stop_file, (0, 0))
    assert train_chunk(folder.path, 600.0).state == "stopped"
    assert folder.read_report()["updates"] == 1 and folder.adapter.is_dir()
    assert not folder.stop_requested()
