"""Runs that borrow a GPU by the chunk, in real processes that are forked, cut off and ended."""

import json
import os
import subprocess
import sys

import pytest

from rsm_app.jobs import zero_gpu
from rsm_app.jobs.workers import kill_tree, terminate
from trainers.errors import InputError
from trainers.lending import gpu_is_real, lent_device
from trainers.processes import process_identity

SECONDS = "16"


@pytest.fixture(scope="module")
def seen(repository, tmp_path_factory):
    place = tmp_path_factory.mktemp("zero")
    own = {
        "SPACES_ZERO_GPU": "true",
        "RSM_ZERO_GPU_SECONDS": SECONDS,
        "LOANS": str(place / "loans.jsonl"),
        "PYTHONPATH": os.pathsep.join([str(repository / "tests" / "zero_gpu"), str(repository)]),
    }
    done = subprocess.run(
        [sys.executable, str(repository / "tests" / "zero_gpu" / "scenario.py"), str(place / "runs")],
        env={**os.environ, **own}, cwd=repository, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_goes_on_from_loan_to_loan_and_never_looks_ended(seen):
    run = seen["borrowed_and_stopped"]
    assert set(run["states"]) <= {"queued", "running"}
    assert len(run["loans"]) >= 2 and run["loans"][0]["asked"] == int(SECONDS)
    assert all(loan["ended"] == "returned" and loan["seconds"] <= float(SECONDS) for loan in run["loans"])
    assert {loan["visitor"] for loan in run["loans"]} == {"ann"}, "the time counts as the visitor's"


def test_a_stop_ends_a_borrowed_run_with_its_results(seen):
    run = seen["borrowed_and_stopped"]
    assert run["state"] == "stopped" and not run["error"]
    assert run["updates"] >= 1 and run["adapter"]


def test_a_finished_run_can_be_given_more_time(seen):
    first, more = seen["extended"]["first"], seen["extended"]["more"]
    assert first == {"state": "succeeded", "error": "", "updates": 1}
    assert more["state"] == "succeeded" and more["updates"] >= 2


def test_a_gpu_that_is_taken_away_fails_the_run_with_a_sentence_and_it_resumes(seen):
    run = seen["taken_away"]
    assert run["first"]["state"] == "failed"
    assert "GPU task aborted" in run["first"]["error"] and "Resume" in run["first"]["error"]
    assert set(run["states"]) <= {"queued", "running"}
    assert run["more"]["state"] == "stopped" and run["more"]["updates"] >= 1


def test_what_the_engine_refuses_is_told_as_it_says_it(seen):
    assert seen["refused"]["state"] == "failed" and "elephant" in seen["refused"]["error"]


def test_the_queue_offers_the_lent_gpu_and_nothing_stays_at_work(seen):
    assert seen["devices"] == ["cuda:0", "cpu"]
    assert seen["at_work"] == []


def test_the_app_whose_thread_a_worker_is_never_ends_itself():
    """This very process would be gone."""
    identity = process_identity(os.getpid())
    terminate(os.getpid(), identity)
    kill_tree(os.getpid(), identity)


def test_a_gpu_counts_only_where_it_was_lent(monkeypatch):
    assert gpu_is_real()
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert not gpu_is_real()
    with lent_device():
        assert gpu_is_real()
    assert not gpu_is_real()


@pytest.mark.parametrize("text", ["soon", "10", "-1", "inf", "nan"])
def test_a_wrong_length_of_loans_is_refused(text, monkeypatch):
    monkeypatch.setenv(zero_gpu.SECONDS, text)
    with pytest.raises(InputError, match="must be a number above 10"):
        zero_gpu.chunk_seconds()


def test_the_real_package_leaves_a_chunk_as_it_is_outside_zero_gpu():
    import spaces

    assert spaces.GPU(duration=60)(zero_gpu._chunk) is zero_gpu._chunk


def test_a_missing_package_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "spaces", None)
    zero_gpu._lent_chunk.cache_clear()
    with pytest.raises(InputError, match="package 'spaces'"):
        zero_gpu._lent_chunk()
