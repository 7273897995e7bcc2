"""What the run panel and the figures before a run say, without a browser."""

import dataclasses
import re

import pytest
from PIL import Image

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.resources import Resources
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import curves, form, live, pictures, preflight
from rsm_app.ui.result import duration
from trainers.methods import METHODS, fitting_methods
from trainers.models import MODELS
from trainers.presets import build_config

MACHINE = Resources("cpu", 2, 8192.0, None)


@pytest.fixture
def supervisor(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    made = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0, run_seconds=600))
    yield made
    made.close()


def told(supervisor, monkeypatch, machine=MACHINE, **values):
    monkeypatch.setattr(preflight, "resources", lambda asked: machine)
    return preflight.preflight_html(
        supervisor, build_config("tiny-flow", "rsm_zeroth_order_flow", "shapes", values)
    )


def test_a_cost_is_told_where_the_hardware_has_a_price(supervisor, monkeypatch):
    assert "Cost" not in told(supervisor, monkeypatch)
    priced = dataclasses.replace(MACHINE, hourly_price=3.6)
    assert "about $0.0" in told(supervisor, monkeypatch, priced, budget_seconds=90)
    assert "<dd>free</dd>" in told(supervisor, monkeypatch, dataclasses.replace(MACHINE, hourly_price=0.0))


def test_what_speaks_against_a_run_is_said(supervisor, monkeypatch):
    assert "Worth knowing" not in told(supervisor, monkeypatch, budget_seconds=300)
    assert "too little memory" in told(supervisor, monkeypatch, Resources("cpu", 2, 300.0, None))
    assert "may take 10 min here" in told(supervisor, monkeypatch, budget_seconds=900)
    assert "No device of this machine is cuda" in told(
        supervisor, monkeypatch, Resources("", 2, 8192.0, None), device="cuda"
    )
    assert "leave no time for training" in told(supervisor, monkeypatch, budget_seconds=20)


def test_an_unmeasured_device_gets_no_invented_times(supervisor, monkeypatch):
    html = told(supervisor, monkeypatch, Resources("cuda:0", 8, 8192.0, None))
    assert "cannot be told yet" in html and "in all" not in html
    assert "16 pictures" in html and "GPU (cuda:0)" in html and "Cost" not in html


def tiles(html) -> dict[str, str]:
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", html))


def test_the_first_run_on_a_gpu_is_told_what_is_known_of_it(supervisor, monkeypatch):
    """Host memory says nothing of a GPU, and a price times the budget is the most that it costs."""
    machine = Resources("cuda:0", 8, 8192.0, hourly_price=3.6, gpu_memory_gb=25.76)
    html = told(supervisor, monkeypatch, machine, budget_seconds=90, eval_prompts=30)
    shown = tiles(html)
    assert f"At most <b>{duration(90)}</b>" in html and "8.0 GiB" not in html
    assert shown["Cost"] == "at most $0.09" and shown["Pictures to compare"] == "240"
    assert shown["GPU memory"] == "not known yet, of 26 GB" and "Memory" not in shown
    assert shown["Updates"] == shown["Pictures for training"] == "not known yet"
    free = dataclasses.replace(machine, hourly_price=0.0, gpu_memory_gb=0.0)
    shown = tiles(told(supervisor, monkeypatch, free, max_updates=7))
    assert (shown["Cost"], shown["Updates"], shown["GPU memory"]) == ("free", "at most 7", "not known yet")


def test_a_large_model_is_told_the_smallest_gpu_that_it_fits(supervisor, monkeypatch):
    monkeypatch.setattr(preflight, "_asked_lately", lambda model, period: ())
    monkeypatch.setattr(preflight, "resources", lambda asked: Resources("cuda:0", 8, 1.0, None, 25.76))
    config = build_config("sd35-large", "rsm_zeroth_order_flow", "colorfulness", {})
    shown = tiles(preflight.preflight_html(supervisor, config))
    assert shown["GPU memory"] == "24 GB or more, of 26 GB" and shown["Pictures to compare"] == "128"


@pytest.mark.parametrize(
    ("silent", "verdict"), [(0, "has signal: it tells"), (3, "some prompts teach nothing"),
                            (6, "Weak signal"), (8, "No signal")],
)  # fmt: skip
def test_the_verdict_on_a_reward_follows_its_silent_prompts(silent, verdict):
    found = {"prompts": 8, "samples": 4, "mean": 0.5, "spread": 0.1, "between": 0.2, "seconds": 6.0}
    config = build_config("tiny-flow", "grpo", "shapes", {})
    assert verdict in preflight.spread_html(found | {"silent": silent}, config)


def test_a_failure_is_split_into_cause_and_advice():
    cause, advice = live.cause_and_advice("The disk is full. Free some space. Then go on.", resumable=True)
    assert cause == "The disk is full."
    assert advice == "Free some space. Then go on. Retry goes on from the last checkpoint."
    cause, advice = live.cause_and_advice("It failed", resumable=False)
    assert cause == "It failed" and advice.startswith("Retry starts it anew")


def test_what_a_run_says_is_escaped():
    assert "<b>x" not in live.strip_html([{"prompts": ["<b>x</b>"]}])
    assert "<i>" not in live.symptoms_html(["<i>"]) and live.symptoms_html([]) == ""
    assert "<u>" not in preflight.unready_html(["<u>"])
    assert live.strip_html([{"prompts": None}]) == live.strip_html([]) == ""


def test_points_of_looks_are_means_and_changes_and_damage_is_left_out():
    lines = [
        {"step": 0, "reward": [0.0, 1.0], "others": {"shapes": [0.5, 0.5]}},
        {"step": 4, "reward": [1.0, 1.0], "others": {"shapes": [0.0, 0.5]}},
        {"step": 8, "reward": None},
        {"reward": [1.0]},
        {"step": 12, "reward": [1.0, float("nan")], "others": 3},
    ]
    points = curves.probe_lines(lines)
    assert points == [
        {"step": 0, curves.HELDOUT: 0.5, "shapes": 0.0},
        {"step": 4, curves.HELDOUT: 1.0, "shapes": -0.25},
    ]
    assert curves.other_names(points) == ["shapes"] and curves.other_names([]) == []


def test_the_strip_has_a_row_for_each_look_and_opens_no_other_file(tmp_path):
    run = RunStore(tmp_path).create()
    run.request.write_text("{}")
    folder = run.folder.samples / "probe-000000"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (64, 64), (number * 80, 0, 0)).save(folder / f"{number:05d}.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "outside.png")
    names = [f"samples/probe-000000/{number:05d}.png" for number in range(3)]
    lines = [{"step": step, "reward": [0.5], "pictures": names} for step in range(0, 100, 4)]
    strip = pictures.probe_strip(run, lines)
    assert len(strip) == pictures.STRIP_ROWS and strip[0][1] == "Base model: mean reward 0.50"
    assert strip[-1][1] == "Update 96: mean reward 0.50" and strip[0][0].size[0] > 3 * 64
    outside = [{"step": 1, "pictures": ["../outside.png", "samples/../../outside.png", 3]}, {"pictures": 5}]
    assert pictures.probe_strip(run, outside) == []


@pytest.mark.parametrize("model", MODELS.names())
@pytest.mark.parametrize("reward", ["shapes", "tiny_clip"])
def test_every_estimator_is_listed_or_said_not_to_fit(model, reward):
    fitting = set(fitting_methods(MODELS.get(model).family, reward == "tiny_clip"))
    short, whole = (form.fit(model, reward, None, every) for every in (False, True))
    assert {name for _, name in whole.choices} == fitting and whole.hidden == 0
    assert len(short.choices) <= 3 and len(short.choices) + short.hidden == len(fitting)
    assert [name for _, name in whole.choices][: len(short.choices)] == [name for _, name in short.choices]
    assert short.estimator == short.choices[0][1] and short.estimator.startswith("rsm_zeroth_order")
    for spec in METHODS.specs():
        assert (spec.name in fitting) != (f"<b>{spec.title}</b>" in whole.notes), spec.name
