"""Warning signs of a run, in words: no signal, collapse, decline, reward hacking. Torch-free.

Read from ``metrics.jsonl`` (one line per update) and ``probes.jsonl`` (the same held-out pictures drawn again
now and then). Every threshold is a constant below; they are set so that a run has to show something twice, or
clearly beyond its own noise, before anything is said. ``tests/test_symptoms.py`` holds them against recorded
runs, good ones and bad ones.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainers.rewards import REWARDS

WINDOW = 4
"""Updates that are averaged at the beginning and at the end of a run."""
SILENT_SHARE = 0.7
"""Share of groups with equal rewards, over ``WINDOW`` updates, beyond which a run has no signal."""
LEVEL_SPREAD = 0.2
"""Share of its first spread to which the reward's spread must fall to count as collapse."""
LOW_DIVERSITY = 0.65
"""Share of the base model's diversity below which the latest two probes count as collapse."""
CLEAR = 3.0
"""Standard errors that a change must exceed."""
LARGE = 0.25
"""Smallest fall of a probe's reward that is told, in standard deviations of the base model's pictures."""
SAMPLES = 2
"""Pictures of one prompt in a probe; they follow each other."""


@dataclass(frozen=True)
class Symptom:
    """One warning sign.

    Attributes:
        kind: ``no_signal``, ``collapse``, ``decline`` or ``hacking``.
        text: What is seen and what to do, in plain sentences.
    """

    kind: str
    text: str


def symptoms(
    metrics: Sequence[Mapping], probes: Sequence[Mapping], groups: int, reward: str
) -> list[Symptom]:
    """Return the warning signs that a run shows now.

    Args:
        metrics: Lines of ``metrics.jsonl``, oldest first.
        probes: Lines of ``probes.jsonl``, oldest first; may be empty.
        groups: Groups of pictures whose rewards one rollout compares.
        reward: The optimised reward as the settings name it.
    """
    found = [_no_signal(metrics, groups), _collapse(metrics, probes), _decline(metrics)]
    found += _hacking(metrics, probes, reward)
    return [symptom for symptom in found if symptom]


def change(metrics: Sequence[Mapping], key: str = "reward_mean") -> tuple[float, float]:
    """Return how much a metric rose from the first to the last ``WINDOW`` updates, and its standard error.

    The noise is read from the differences of neighbouring updates, which a trend hardly enters. Both are 0
    when there are fewer than two windows.
    """
    values = _numbers(metrics, key)
    if len(values) < 2 * WINDOW:
        return 0.0, 0.0
    steps = [after - before for before, after in zip(values, values[1:], strict=False)]
    noise = math.sqrt(statistics.fmean(step * step for step in steps) / 2)
    rise = statistics.fmean(values[-WINDOW:]) - statistics.fmean(values[:WINDOW])
    return rise, noise * math.sqrt(2 / WINDOW)


def probe_gain(probes: Sequence[Mapping], name: str | None = None) -> tuple[float, float, float]:
    """Compare the latest two probes with the base model, picture by picture.

    Args:
        probes: Lines of ``probes.jsonl``; the first is the base model's.
        name: An un-optimised reward; None for the optimised one.

    Returns:
        Mean gain, its standard error over prompts, and the spread of the base model's pictures; zeros when
        there are fewer than three probes or their pictures do not match.
    """
    rows = [_values(line, name) for line in probes]
    if len(rows) < 3 or not rows[0] or any(len(row) != len(rows[0]) for row in (rows[-1], rows[-2])):
        return 0.0, 0.0, 0.0
    gains = [(a + b) / 2 - base for base, a, b in zip(rows[0], rows[-1], rows[-2], strict=True)]
    prompts = [statistics.fmean(gains[i : i + SAMPLES]) for i in range(0, len(gains), SAMPLES)]
    if len(prompts) < 3:
        return 0.0, 0.0, 0.0
    error = statistics.stdev(prompts) / math.sqrt(len(prompts))
    return statistics.fmean(gains), error, statistics.pstdev(rows[0])


def _no_signal(metrics: Sequence[Mapping], groups: int) -> Symptom | None:
    silent = _numbers(metrics, "zero_spread_groups")[-WINDOW:]
    if len(silent) == WINDOW and groups and statistics.fmean(silent) / groups > SILENT_SHARE:
        share = statistics.fmean(silent) / groups
        return Symptom(
            "no_signal",
            f"Little to learn from: in {share:.0%} of the groups of pictures that are compared, all got the "
            "same reward. Choose a reward with finer steps, other prompts, or more pictures per group.",
        )
    norms = _numbers(metrics, "grad_norm")[-WINDOW:]
    if len(norms) == WINDOW and max(norms) == 0.0:
        return Symptom(
            "no_signal",
            "Nothing to learn from: the reward gave no direction in the last updates, so the model does not "
            "change. Choose another reward or another estimator.",
        )
    return None


def _collapse(metrics: Sequence[Mapping], probes: Sequence[Mapping]) -> Symptom | None:
    diversity = _numbers(probes, "diversity")
    if len(diversity) >= 3 and diversity[0] > 0:
        kept = max(diversity[-2:]) / diversity[0]
        if kept < LOW_DIVERSITY:
            return Symptom(
                "collapse",
                f"Pictures of one prompt have become alike: their diversity is down to {kept:.0%} of the "
                "base model's. Stop here, or start again with a stronger pull to the base model "
                "(kl_weight) or a smaller learning_rate.",
            )
    spread = _numbers(metrics, "reward_std")
    if len(spread) >= 2 * WINDOW:
        first, last = statistics.fmean(spread[:WINDOW]), statistics.fmean(spread[-WINDOW:])
        if first > 0 and last < LEVEL_SPREAD * first:
            return Symptom(
                "collapse",
                f"The rewards of one rollout hardly differ any more (their spread is {last / first:.0%} of "
                "what it was): the pictures have become alike, or the reward has reached its end. "
                "Training longer will not help.",
            )
    return None


def _decline(metrics: Sequence[Mapping]) -> Symptom | None:
    rise, error = change(metrics)
    if error == 0.0 or rise >= -CLEAR * error:
        return None
    return Symptom(
        "decline",
        f"The training reward is lower than at the beginning (by {-rise:.3g}): the model is being damaged. "
        "Stop, and start again with a smaller learning_rate or a stronger pull to the base model "
        "(kl_weight).",
    )


def _hacking(metrics: Sequence[Mapping], probes: Sequence[Mapping], reward: str) -> list[Symptom]:
    rise, error = change(metrics)
    if error == 0.0 or rise <= CLEAR * error or not probes:
        return []
    falls = {name: _fall(probes, name) for name in (None, *_others(probes))}
    heldout, falls = falls.pop(None), {name: fall for name, fall in falls.items() if fall}
    advice = "Stop, and start again with a stronger pull to the base model (kl_weight) or a shorter run."
    found = []
    if heldout:
        found.append(
            f"The training reward rises, but “{_title(reward)}” on held-out prompts has fallen by "
            f"{heldout:.2g}: what is learned does not carry over. {advice}"
        )
    if falls:
        names = ", ".join(f"“{_title(name)}” (by {fall:.2g})" for name, fall in falls.items())
        found.append(
            f"The training reward rises, but what is not optimised has fallen on held-out prompts: {names}. "
            f"The reward may be gained at the cost of the picture. {advice}"
        )
    return [Symptom("hacking", text) for text in found]


def _fall(probes: Sequence[Mapping], name: str | None) -> float:
    """Return by how much a probe's reward has clearly fallen; 0 when it has not."""
    gain, error, spread = probe_gain(probes, name)
    return -gain if gain < -CLEAR * error and -gain > LARGE * spread > 0 else 0.0


def _title(name: str) -> str:
    return REWARDS.get(name).title if name in REWARDS else name


def _others(probes: Sequence[Mapping]) -> list[str]:
    others = probes[0].get("others")
    return list(others) if isinstance(others, Mapping) else []


def _values(line: Mapping, name: str | None) -> list[float]:
    """Return a probe's rewards picture by picture; empty when they are missing or not finite."""
    others = line.get("others")
    values = line.get("reward") if name is None else others.get(name) if isinstance(others, Mapping) else None
    fine = isinstance(values, list) and all(_finite(value) for value in values)
    return [float(value) for value in values] if fine else []


def _numbers(lines: Sequence[Mapping], key: str) -> list[float]:
    return [float(line[key]) for line in lines if _finite(line.get(key))]


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
