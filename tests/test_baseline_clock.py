"""The time of the comparison before training, however many sessions it took."""

import pytest

from trainers.baseline_clock import BaselineClock
from trainers.run_folder import RunFolder, write_json

ALL = 100


@pytest.fixture
def clock(tmp_path):
    """Make clocks as one session after the other would."""
    return lambda: BaselineClock(RunFolder(tmp_path), ALL)


def draw(clock, batches, seconds=2.0):
    for _ in range(batches):
        clock.drew(10, seconds)


def test_one_session_counts_drawing_and_scoring(clock):
    first = clock()
    draw(first, 10)
    first.scored(3.0)
    assert first.seconds == clock().seconds == 23.0


def test_what_was_drawn_counts_also_when_the_session_ended_before_it_scored(clock):
    draw(clock(), 10)
    later = clock()
    later.scored(3.0)
    assert later.seconds == clock().seconds == 23.0


def test_a_session_that_draws_the_last_few_does_not_count_its_scoring_for_each(clock):
    draw(clock(), 9)
    later = clock()
    draw(later, 1)
    later.scored(3.0)
    assert later.seconds == 23.0
    again = clock()
    again.scored(4.0)
    assert again.seconds == 24.0, "scoring is done by every session, drawing once"


def test_a_batch_that_was_lost_and_drawn_again_counts_once(clock):
    first = clock()
    draw(first, 3)  # the third was never kept
    later = clock()
    draw(later, 8)
    later.scored(0.0)
    assert later.seconds == pytest.approx(20.0)


def test_without_a_count_of_batches_the_recorded_time_stays(clock, tmp_path):
    write_json(tmp_path / "samples" / "before.json", {"seconds": 7.0})
    later = clock()
    later.scored(1.0)
    assert later.seconds == clock().seconds == 7.0
