"""The clock of the engine's phases: own time only, adding up to the time on the wall, also over threads."""

import threading

import pytest
import torch

from tests.trainer_cases import equal, toy
from trainers import phases
from trainers.parallel import map_chunks, overlapped
from trainers.phases import PHASES, phase, running, split

CPU = torch.device("cpu")


@pytest.fixture
def two_threads(restored_threads):
    torch.set_num_threads(2)


class HandClock:
    """A clock of every thread's own that goes on only when it is told to."""

    def __init__(self):
        self._time = threading.local()

    def perf_counter(self):
        return getattr(self._time, "now", 0.0)

    def spend(self, seconds):
        self._time.now = self.perf_counter() + seconds


@pytest.fixture
def hand_clock(monkeypatch):
    clock = HandClock()
    monkeypatch.setattr(phases, "time", clock)
    return clock


def test_inner_phases_do_not_count_for_outer_ones_and_all_adds_up(hand_clock):
    with split(CPU) as seconds:
        with phase("reward"):
            hand_clock.spend(0.5)
            with phase("decode"):
                hand_clock.spend(1.0)
        hand_clock.spend(0.25)
    assert seconds == {"reward": 0.5, "decode": 1.0, "engine": 0.25}


def test_threads_count_by_their_share_and_waiting_for_them_is_the_engine_s(two_threads, hand_clock):
    def work(length):
        with phase("decode"):
            hand_clock.spend(length)

    with split(CPU) as seconds:
        map_chunks(work, [2.0, 1.0], CPU)
        hand_clock.spend(2.0)  # as long as the longer of the two
    # One thread worked for 2 s and the other for 1 s and waited for 1 s; each is half of the machine.
    assert seconds == {"decode": 1.5, "engine": 0.5}


def test_without_a_clock_nothing_is_counted_and_a_clock_ends_with_its_body(hand_clock):
    assert not running()
    with split(CPU) as seconds, phase("decode"):
        assert running()
    counted = dict(seconds)
    with phase("decode"):
        hand_clock.spend(1.0)
    assert dict(seconds) == counted and not running()


@pytest.mark.parametrize("method", ["rsm_zeroth_order_flow", "rsm_first_order_flow", "sqdf", "awm"])
def test_a_clock_changes_nothing_and_sees_every_phase_of_a_row(one_thread, method):
    plain, watched = toy("flow", method), toy("flow", method)
    plain.advance()
    with split(CPU) as seconds:
        watched.advance()
    assert equal(plain.policy.state(), watched.policy.state())
    seen = {name for name, spent in seconds.items() if spent > 0}
    assert seen <= {*PHASES, "engine"}
    assert seen >= {
        "rollout_network",
        "training_forward",
        "training_backward",
        "decode",
        "reward",
        "optimiser",
    }
    assert ("reward_gradient" in seen) == (method in ("rsm_first_order_flow", "sqdf"))


def test_overlapped_work_keeps_its_order_and_really_overlaps():
    begun = [threading.Event() for _ in range(7)]
    begun[6].set()

    def first(chunk):
        begun[chunk].set()
        return chunk + 1

    def second(chunk, middle):
        # One after the other, the next chunk would not begin before this one is through.
        assert begun[chunk + 1].wait(60)
        assert not torch.is_grad_enabled()
        return chunk, middle

    assert overlapped(first, second, range(6)) == [(i, i + 1) for i in range(6)]
    assert overlapped(first, second, []) == []


def test_what_goes_wrong_in_overlapped_work_is_raised():
    def broken(chunk, middle):
        raise ValueError(f"chunk {chunk}")

    with pytest.raises(ValueError, match="chunk 0"):
        overlapped(lambda chunk: chunk, broken, range(3))
