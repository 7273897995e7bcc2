"""How long a worker that finishes a stopped run is waited for."""

import pytest

from rsm_app.jobs.stopping import finishing_seconds
from trainers.interruption import FINISHING_SECONDS, STOP_SECONDS
from trainers.run_folder import RunStatus


@pytest.mark.parametrize(
    ("said", "given"),
    [
        (None, 0.0),
        (3.0, 6.0),
        (STOP_SECONDS + FINISHING_SECONDS, 2 * (STOP_SECONDS + FINISHING_SECONDS)),
        (3600.0, 2 * (STOP_SECONDS + FINISHING_SECONDS)),  # of the full comparison that the stop met
    ],
)
def test_a_worker_is_given_what_it_says_up_to_what_a_stopped_comparison_takes(said, given):
    assert finishing_seconds(RunStatus(state="stopping", phase="evaluate", eta_seconds=said)) == given
