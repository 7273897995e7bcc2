"""What is known before a run: speeds of earlier ones, what the machine has, and a few base samples."""

import dataclasses

import pytest

from rsm_app.jobs import resources as machine
from rsm_app.jobs.base_samples import check_spread
from rsm_app.jobs.history import speed
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.resources import hourly_price, resources
from rsm_app.jobs.supervisor import Supervisor
from tests.jobs.small_runs import ended, small_config, wait_for
from trainers.errors import FaultError
from trainers.preflight import estimate
from trainers.presets import build_config


def test_a_finished_run_is_what_the_next_estimate_rests_on(supervisor):
    config = small_config(probe_every=1)
    assert "has finished here yet" in speed(supervisor, config, "cpu").source
    run = supervisor.submit(config)
    wait_for(ended(run), what="the end of the run")
    found = speed(supervisor, config, "cpu")
    assert "an earlier run" in found.source
    report = run.folder.read_report()
    expected = estimate(config, found)
    assert expected.total_seconds == pytest.approx(report["wall_seconds"], rel=0.5)
    assert expected.updates == 2 == report["updates"]
    assert expected.training_pictures == report["images_sampled"]
    for other in (small_config(threads=2), dataclasses.replace(config, estimator="grpo")):
        assert "has finished here yet" in speed(supervisor, other, "cpu").source
    assert speed(supervisor, config, "cuda:0") is None, "no GPU was ever measured"


def test_damaged_runs_are_passed_over(store, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(store, Limits())
    monkeypatch.setattr(supervisor, "tick", lambda: None)
    run = supervisor.submit(small_config())
    run.folder.config.write_text(run.request.read_text())
    run.folder.status_file.write_text('{"state": "succeeded", "pid_identity": "gone"}')
    run.folder.report.write_text("{")
    run.change_job(ticket=0)
    assert run.status().state == "succeeded"
    assert "has finished here yet" in speed(supervisor, small_config(), "cpu").source
    supervisor.close()


@pytest.mark.parametrize(
    ("variables", "price"),
    [
        ({}, None),
        ({"SPACE_HARDWARE": "cpu-basic"}, 0.0),
        ({"SPACE_HARDWARE": "T4-small"}, 0.40),
        ({"SPACE_HARDWARE": "unheard-of"}, None),
        ({"SPACE_HARDWARE": "t4-small", "RSM_HOURLY_PRICE": "2.5"}, 2.5),
        ({"RSM_HOURLY_PRICE": "dear"}, None),
        ({"RSM_HOURLY_PRICE": "-1"}, None),
        ({"RSM_HOURLY_PRICE": "nan"}, None),
    ],
)
def test_a_price_is_told_only_where_one_is_known(variables, price):
    assert hourly_price(variables) == price


def test_the_device_is_the_one_a_run_would_get(monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cuda:0,cpu")
    assert resources("auto").device == "cuda:0" and resources("cpu").device == "cpu"
    assert resources("cuda:1").device == ""
    assert resources("auto").cores >= 1


def test_a_container_s_memory_limit_counts(monkeypatch, tmp_path):
    free = machine.free_memory_mb()
    (tmp_path / "memory.max").write_text(f"{300 * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{100 * 2**20}\n")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    assert machine.free_memory_mb() == pytest.approx(min(200.0, free), rel=0.2)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory_mb() > 200.0


def test_base_samples_are_scored_in_a_process_of_their_own():
    config = build_config("tiny-flow", "rsm_zeroth_order_flow", "brightness", {})
    found = check_spread(config, "a red circle\ntwo blue squares\n")
    assert found["prompts"] == 2 and found["spread"] > 0 and 0 < found["mean"] < 1


def test_what_cannot_be_scored_or_takes_too_long_is_told_in_words():
    config = build_config("tiny-flow", "rsm_zeroth_order_flow", "shapes", {})
    with pytest.raises(FaultError, match="grandmother"):
        check_spread(config, "a photograph of my grandmother\n")
    with pytest.raises(FaultError, match=r"longer than 0\.1 seconds"):
        check_spread(config, timeout=0.1)
