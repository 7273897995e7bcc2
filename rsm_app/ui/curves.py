"""From ``metrics.jsonl`` to what a line plot draws: thinned, steady while it grows, in the plot's own form.

A plot value is the plain mapping that ``gr.LinePlot`` sends to the browser, so no data frame is built.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from rsm_app.ui.result import is_finite

MAX_POINTS = 400
HELDOUT = "heldout"


def thin(lines: Sequence[dict], limit: int = MAX_POINTS) -> list[dict]:
    """Keep every 2ⁿ-th update so that at most ``limit`` remain, the last one always among them when done.

    The stride doubles as a run grows, so a point that is drawn stays where it is and a long run's plot
    changes only every 2ⁿ updates.
    """
    stride = 1
    while math.ceil(len(lines) / stride) > limit:
        stride *= 2
    return list(lines[::stride])


def plot(lines: Sequence[dict], series: dict[str, str], x: str = "step") -> dict:
    """Return long data with one row per update and series.

    Args:
        lines: Metrics, one mapping per update.
        series: Metric name to the name shown in the legend.
        x: The metric on the horizontal axis.

    Returns:
        Columns ``x``, ``value``, ``series`` with their types; rows whose number is missing or not finite
        are left out.
    """
    rows = [
        [line[x], float(line[key]), title]
        for key, title in series.items()
        for line in lines
        if is_finite(line.get(x)) and is_finite(line.get(key))
    ]
    return {
        "columns": [x, "value", "series"],
        "data": rows,
        "datatypes": {x: "quantitative", "value": "quantitative", "series": "nominal"},
        "mark": "line",
    }


def probe_lines(probes: Sequence[dict]) -> list[dict]:
    """Return one point per look at held-out prompts: update, mean reward, and how the other rewards changed.

    Args:
        probes: Lines of ``probes.jsonl``; those without readable rewards are left out.
    """
    points: list[dict] = []
    first: dict[str, float] = {}
    for line in probes:
        reward = _mean(line.get("reward"))
        others = line.get("others") if isinstance(line.get("others"), dict) else {}
        means = {name: mean for name, values in others.items() if (mean := _mean(values)) is not None}
        if reward is None or not is_finite(line.get("step")):
            continue
        first = first or means
        points.append(
            {"step": line["step"], HELDOUT: reward}
            | {name: mean - first[name] for name, mean in means.items() if name in first}
        )
    return points


def other_names(points: Sequence[dict]) -> list[str]:
    """Return the names of the un-optimised rewards among such points."""
    return [name for name in points[0] if name not in ("step", HELDOUT)] if points else []


def _mean(values: object) -> float | None:
    fine = isinstance(values, list) and values and all(is_finite(value) for value in values)
    return statistics.fmean(values) if fine else None
