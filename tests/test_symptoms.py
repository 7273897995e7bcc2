"""Warning signs: each is seen in a series that has it, and none in series that do not.

``tests/series`` holds series of real runs as the engine wrote them (its README says which); the rest are
drawn here.
"""

import json
import random
from pathlib import Path

import pytest

from trainers.preflight import groups_per_rollout
from trainers.presets import build_config
from trainers.symptoms import CLEAR, WINDOW, change, probe_gain, symptoms

SERIES = Path(__file__).parent / "series"
GROUPS = 24


def updates(count=12, rise=0.01, noise=0.01, seed=0, silent=2, spread=0.25, **others):
    draw = random.Random(seed)
    return [
        {
            "step": i + 1,
            "reward_mean": 0.7 + rise * i + draw.gauss(0, noise),
            "reward_std": spread,
            "zero_spread_groups": silent,
            "grad_norm": 0.05,
            **others,
        }
        for i in range(count)
    ]


def probes(*steps, pictures=16, noise=0.03, seed=0, diversity=None, **gains):
    """Looks at ``steps``; a gain by name is what each picture won at each look after the first."""
    draw = random.Random(seed)
    base = [draw.uniform(0.2, 0.9) for _ in range(pictures)]
    lines = []
    for number, step in enumerate(steps):

        def values(name, number=number):
            gain = gains.get(name, (0.0,) * len(steps))[number]
            return [value + gain + (draw.gauss(0, noise) if number else 0.0) for value in base]

        lines.append(
            {
                "step": step,
                "reward": values("reward"),
                "others": {"shapes": values("shapes"), "tiny_clip": values("tiny_clip")},
                "diversity": diversity[number] if diversity else 0.25,
            }
        )
    return lines


def kinds(metrics, looks=(), groups=GROUPS):
    return [found.kind for found in symptoms(metrics, list(looks), groups, "colorfulness")]


@pytest.mark.parametrize("seed", range(40))
def test_a_run_that_learns_raises_no_alarm(seed):
    looks = probes(0, 4, 8, 12, seed=seed, reward=(0, 0.03, 0.06, 0.09), shapes=(0, 0.01, 0, 0.01))
    assert kinds(updates(14, rise=0.006, noise=0.02, seed=seed), looks) == []


@pytest.mark.parametrize("seed", range(40))
def test_a_run_that_goes_nowhere_raises_no_alarm(seed):
    assert kinds(updates(30, rise=0.0, noise=0.03, seed=seed), probes(0, 4, 8, seed=seed)) == []


def test_a_beginning_raises_no_alarm():
    for count in range(WINDOW):
        assert kinds(updates(count, silent=GROUPS)) == []
    assert kinds([], []) == []


def test_groups_without_spread_are_no_signal():
    assert kinds(updates(6, silent=GROUPS)) == ["no_signal"]
    assert kinds(updates(6, silent=int(0.6 * GROUPS))) == []
    told = symptoms(updates(6, silent=18), [], GROUPS, "shapes")
    assert "75%" in told[0].text
    assert kinds(updates(6, silent=0), groups=0) == [], "methods that read gradients have no groups"


def test_a_gradient_that_vanishes_is_no_signal():
    assert kinds(updates(6, grad_norm=0.0), groups=0) == ["no_signal"]


def test_pictures_that_become_alike_are_a_collapse():
    alike = probes(0, 4, 8, 12, diversity=(0.25, 0.2, 0.15, 0.14))
    assert kinds(updates(14, rise=0.0, noise=0.02), alike) == ["collapse"]
    once = probes(0, 4, 8, 12, diversity=(0.25, 0.24, 0.25, 0.14))
    assert kinds(updates(14, rise=0.0, noise=0.02), once) == [], "one low look is chance"


def test_rewards_that_become_alike_are_a_collapse():
    lines = updates(6, spread=0.25) + updates(6, spread=0.03, seed=1)
    assert kinds(lines) == ["collapse"]


def test_a_reward_below_its_beginning_is_a_decline():
    assert kinds(updates(14, rise=-0.02, noise=0.01)) == ["decline"]
    assert kinds(updates(2 * WINDOW - 1, rise=-0.05, noise=0.01)) == []


def test_an_unoptimised_reward_that_falls_while_the_training_reward_rises_is_hacking():
    looks = probes(0, 4, 8, 12, shapes=(0, -0.05, -0.2, -0.3))
    found = symptoms(updates(14, rise=0.02), looks, GROUPS, "colorfulness")
    assert [sign.kind for sign in found] == ["hacking"]
    assert "Shapes: how much is right" in found[0].text and "kl_weight" in found[0].text
    assert kinds(updates(14, rise=0.0, noise=0.02), looks) == [], "nothing is gained, so nothing is hacked"
    small = probes(0, 4, 8, 12, noise=0.0, shapes=(0, -0.01, -0.02, -0.02))
    assert kinds(updates(14, rise=0.02), small) == [], "certain, but too small to be told"


def test_a_heldout_reward_that_falls_while_the_training_reward_rises_is_hacking():
    looks = probes(0, 4, 8, 12, reward=(0, -0.1, -0.2, -0.3))
    told = symptoms(updates(14, rise=0.02), looks, GROUPS, "colorfulness")
    assert ["held-out" in sign.text for sign in told] == [True]
    assert "Colourfulness" in told[0].text


def test_damaged_lines_are_passed_over():
    looks = [{"step": 0}, {"reward": None, "others": 3}, {"reward": [1, None], "others": {"shapes": "x"}}]
    assert kinds([{}, {"reward_mean": None}, *updates(9)], looks) == []


def test_the_change_of_a_trend_is_clear_and_of_noise_is_not():
    rise, error = change(updates(16, rise=0.02, noise=0.01))
    assert rise == pytest.approx(0.02 * 12, abs=0.05) and rise > CLEAR * error > 0
    false_alarms = sum(abs(r) > CLEAR * e for r, e in (change(updates(16, 0, 0.02, s)) for s in range(400)))
    assert false_alarms <= 8, "3 standard errors, estimated from few updates"


def test_a_probe_s_gain_is_paired_picture_by_picture():
    gain, error, spread = probe_gain(probes(0, 4, 8, noise=0.0, reward=(0, 0.1, 0.3)))
    assert (gain, error) == (pytest.approx(0.2), pytest.approx(0.0, abs=1e-12)) and spread > 0.1
    assert probe_gain(probes(0, 4)) == (0.0, 0.0, 0.0)


# -- recorded runs -----------------------------------------------------------------------------------


def recorded():
    return sorted(SERIES.glob("*.json"))


@pytest.mark.parametrize("path", recorded(), ids=lambda path: path.stem)
def test_recorded_runs_raise_the_alarms_that_they_deserve(path):
    series = json.loads(path.read_text())
    config = build_config(series["model"], series["estimator"], series["reward"], series["settings"])
    found = symptoms(series["metrics"], series["probes"], groups_per_rollout(config), series["reward"])
    assert sorted({sign.kind for sign in found}) == series["expected"], [sign.text for sign in found]


GOOD = [path for path in recorded() if not json.loads(path.read_text())["expected"]]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_recorded_runs_raise_no_alarm_on_the_way(path):
    series = json.loads(path.read_text())
    config = build_config(series["model"], series["estimator"], series["reward"], series["settings"])
    for count in range(len(series["metrics"])):
        metrics = series["metrics"][: count + 1]
        looks = [line for line in series["probes"] if line["step"] <= metrics[-1]["step"]]
        assert symptoms(metrics, looks, groups_per_rollout(config), series["reward"]) == []
