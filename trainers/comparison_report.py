"""The comparison of methods as a Markdown table and as a figure, from the lines that races wrote."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainers.methods import METHODS

LINES = {"by_seconds": "equal seconds", "by_evaluations": "equal evaluations"}
_FIELD = ("model", "reward", "seconds", "evaluations", "pictures")
_HEAD = (
    "| method | gain, equal seconds | z per seed | {other} | diversity | drift | updates "
    "| gain, equal evaluations | seconds |\n|---|---|---|---|---|---|---|---|---|\n"
)


def tables(records: Sequence[Mapping]) -> str:
    """Return one table per field of races, best gain first; see ``trainers.comparison.run_race``."""
    parts = []
    for mine in fields(records):
        rows = sorted(_by_method(mine).items(), key=lambda item: -_mean(item[1], "by_seconds", _gain))
        other = _not_optimised(mine[0])
        lines = "".join(_row(*row, other) for row in rows)
        parts.append(f"### {_title(mine)}\n\n{_HEAD.format(other=other)}{lines}")
    return "\n".join(parts)


def findings(records: Sequence[Mapping]) -> str:
    """Say in words what a comparison found, failures first; one list per field of races."""
    parts = []
    for mine in fields(records):
        name = f"{mine[0]['model']} on {mine[0]['reward']}"
        parts += [f"- {name}: {sentence}" for sentence in _findings(_by_method(mine))]
    return "\n".join(parts) + "\n"


def fields(records: Sequence[Mapping]) -> list[list[Mapping]]:
    """Return the records that can be compared with each other: one model, reward and pair of limits each."""
    found: dict[tuple, list[Mapping]] = {}
    for record in records:
        found.setdefault(tuple(record[name] for name in _FIELD), []).append(record)
    return list(found.values())


def _findings(methods: Mapping[str, Sequence[Mapping]]) -> list[str]:
    gains = {name: _gains(records, "by_seconds") for name, records in methods.items()}
    broken = [name for name, records in methods.items() if any(record["error"] for record in records)]
    repeated = {name: mine for name, mine in gains.items() if len(mine) > 1}
    worse = [name for name, mine in repeated.items() if statistics.fmean(mine) < -2 * _error(mine)]
    dear = [name for name, records in methods.items() if _others(records) < -0.05]
    flat = [name for name, mine in repeated.items() if abs(statistics.fmean(mine)) <= 2 * _error(mine)]
    told = []
    for names, what in (
        (broken, "broke on at least one seed"),
        (worse, "made the reward worse"),
        (dear, "raised it at the cost of `shapes`, by more than 0.05: the reward was fooled"),
        (flat, "did not move the reward by more than twice the standard error over seeds"),
    ):
        if names:
            told.append(f"{', '.join(f'`{name}`' for name in sorted(names))} {what}.")
    told += _leaders(methods)
    sure = {name: mine for name, mine in repeated.items() if statistics.fmean(mine) > 2 * _error(mine)}
    if gains.get("grpo") and sure.keys() - set(dear):
        told.append(
            _against_grpo({name: mine for name, mine in sure.items() if name not in dear}, gains["grpo"])
        )
    return told


def _leaders(methods: Mapping[str, Sequence[Mapping]]) -> list[str]:
    """Say which black-box rows gained most at equal evaluations: all not clearly behind the third.

    Only rows with several seeds, whose gain is more than twice its standard error, can lead.
    """
    reached = {
        name: _gains(records, "by_evaluations")
        for name, records in methods.items()
        if name in METHODS and METHODS.get(name).order == "zeroth"
    }
    spread = {name: (statistics.fmean(mine), _error(mine)) for name, mine in reached.items() if len(mine) > 1}
    if len(spread) < 4:
        return []
    sure = {name: (gain, error) for name, (gain, error) in spread.items() if gain > 2 * error}
    ranked = sorted(sure, key=lambda name: -sure[name][0])
    if not ranked:
        return ["At equal evaluations no black-box row gained more than twice its standard error."]
    least, error = sure[ranked[:3][-1]]
    ahead = [name for name in ranked if sure[name][0] + 2 * math.hypot(sure[name][1], error) >= least]
    told = ", ".join(f"`{name}` {spread[name][0]:+.4f} ± {spread[name][1]:.4f}" for name in ahead)
    return [f"At equal evaluations these black-box rows lead (within two errors of the third): {told}."]


def _against_grpo(gains: Mapping[str, Sequence[float]], grpo: Sequence[float]) -> str:
    """Say what gained most, and how often as much as ``grpo`` where that gained for sure."""
    usual = statistics.fmean(grpo)
    means = {name: statistics.fmean(mine) for name, mine in gains.items()}
    best = max(means, key=lambda name: means[name])
    ahead = (
        f"Of the other rows with a clear gain, `{best}` gained most in equal seconds, {means[best]:+.4f}; "
    )
    ahead += f"`grpo` gained {usual:+.4f}"
    if "grpo" not in gains or usual >= means[best]:
        return f"{ahead}."
    ratios = sorted(means.items(), key=lambda item: -item[1])
    more = ", ".join(f"`{name}` {mean / usual:.1f}" for name, mean in ratios if mean >= 1.5 * usual)
    return f"{ahead}. Gain over that of `grpo`: {more}." if more else f"{ahead}."


def _gains(records: Sequence[Mapping], line: str) -> list[float]:
    return [_gain(record[line]) for record in records if record[line]]


def _error(values: Sequence[float]) -> float:
    """Return the standard error of the mean over seeds; 0 for a single one."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _title(records: Sequence[Mapping]) -> str:
    first, counts = records[0], {len(mine) for mine in _by_method(records).values()}
    seeds = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    return (
        f"{first['model']} on {first['reward']}: {first['seconds']:g} s or {first['evaluations']:,} network "
        f"evaluations, {seeds} seeds, {first['pictures']} held-out pictures"
    )


def _by_method(records: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    methods: dict[str, list[Mapping]] = {}
    for record in records:
        methods.setdefault(record["estimator"], []).append(record)
    return methods


def _not_optimised(record: Mapping) -> str:
    """Return the reward that a race tells beside the optimised one."""
    return "shapes_exact" if record["reward"] == "shapes" else "shapes"


def _row(method: str, records: Sequence[Mapping], other: str) -> str:
    there = [record["by_seconds"] for record in records if record["by_seconds"]]
    broken = len(records) - len(there)
    if not there:
        return f"| `{method}` | broke on every seed: {records[0]['error']} |" + " |" * 7 + "\n"
    cells = [
        f"`{method}`" + (f" ({broken} of {len(records)} seeds broke)" if broken else ""),
        _spread(records, "by_seconds"),
        ", ".join(f"{line['paired']['z']:.1f}" for line in there),
        f"{_mean(records, 'by_seconds', lambda line: line['others'].get(other, 0.0)):+.3f}",
        f"{_mean(records, 'by_seconds', lambda line: line['diversity']):.2f}",
        f"{_mean(records, 'by_seconds', lambda line: line['drift']):.2f}",
        f"{_mean(records, 'by_seconds', lambda line: line['updates']):.0f}",
        _spread(records, "by_evaluations"),
        f"{_mean(records, 'by_evaluations', lambda line: line['seconds']):.0f}",
    ]
    return "| " + " | ".join(cells) + " |\n"


def _others(records: Sequence[Mapping]) -> float:
    """Return the mean change of the reward ``shapes``, where it was not what was optimised."""
    found = [record["by_seconds"]["others"].get("shapes", 0.0) for record in records if record["by_seconds"]]
    return statistics.fmean(found) if found else 0.0


def _gain(line: Mapping) -> float:
    return line["paired"]["mean_gain"]


def _mean(records: Sequence[Mapping], line: str, value) -> float:
    found = [value(record[line]) for record in records if record[line]]
    return statistics.fmean(found) if found else float("-inf")


def _spread(records: Sequence[Mapping], line: str) -> str:
    """Return mean gain ± its standard error over seeds."""
    gains = _gains(records, line)
    return f"{statistics.fmean(gains):+.4f} ± {_error(gains):.4f}" if gains else "not reached"


def save_figure(records: Sequence[Mapping], path: Path) -> None:
    """Draw every method's gain against its diversity, one panel per field and line; suffix is the format."""
    from matplotlib.figure import Figure

    races = fields(records)
    figure = Figure(figsize=(11, 4.6 * len(races)), layout="constrained")
    panels = figure.subplots(len(races), len(LINES), squeeze=False)
    for row, mine in zip(panels, races, strict=True):
        for axis, (line, title) in zip(row, LINES.items(), strict=True):
            there = [record for record in mine if record[line]]
            name = f"{mine[0]['model']} on {mine[0]['reward']}, {title}"
            _bars(axis, _by_method(there), line, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _bars(axis, methods: Mapping[str, Sequence[Mapping]], line: str, title: str) -> None:
    order = sorted(methods, key=lambda method: _mean(methods[method], line, _gain))
    for place, method in enumerate(order):
        gains = _gains(methods[method], line)
        axis.barh(place, statistics.fmean(gains), color="#7aa6d8")
        axis.plot(gains, [place] * len(gains), "k.", ms=4)
    axis.axvline(0.0, color="black", lw=0.8)
    axis.set_title(title, fontsize=10)
    axis.set(xlabel="gain on held-out pictures (dots: seeds)")
    axis.set_yticks(range(len(order)), order, fontsize=8)
