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
    gains = _repeated(methods, "by_seconds")
    broken = [name for name, records in methods.items() if any(record["error"] for record in records)]
    worse = [name for name, (gain, error) in gains.items() if gain < -2 * error]
    dear = [name for name, records in methods.items() if _others(records) < -0.05]
    flat = [name for name, (gain, error) in gains.items() if abs(gain) <= 2 * error]
    told = []
    for names, what in (
        (broken, "broke on at least one seed"),
        (worse, "made the reward worse"),
        (dear, "raised it at the cost of `shapes`, by more than 0.05: the reward was fooled"),
        (flat, "did not move the reward by more than twice the standard error over seeds"),
    ):
        if names:
            told.append(f"{', '.join(f'`{name}`' for name in sorted(names))} {what}.")
    told += _leaders(_repeated(methods, "by_evaluations"))
    clear = {name: gain for name, gain in _clear(gains).items() if name not in dear}
    return told + ([_against_grpo(clear, gains["grpo"][0])] if clear and "grpo" in gains else [])


def _repeated(methods: Mapping[str, Sequence[Mapping]], line: str) -> dict[str, tuple[float, float]]:
    """Return mean gain and its standard error of every method with several seeds: one alone has no error."""
    reached = {name: _gains(records, line) for name, records in methods.items()}
    return {name: (statistics.fmean(mine), _error(mine)) for name, mine in reached.items() if len(mine) > 1}


def _clear(gains: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the gains of more than twice their standard error, largest first."""
    ranked = sorted(gains.items(), key=lambda item: -item[1][0])
    return {name: gain for name, (gain, error) in ranked if gain > 2 * error}


def _leaders(gains: Mapping[str, tuple[float, float]]) -> list[str]:
    """Say which black-box rows gained most at equal evaluations: all not clearly behind the third."""
    mine = {name: gain for name, gain in gains.items() if name in METHODS and _is_black_box(name)}
    if len(mine) < 4:
        return []
    ranked = list(_clear(mine))
    if not ranked:
        return ["At equal evaluations no black-box row gained more than twice its standard error."]
    least, error = mine[ranked[:3][-1]]
    ahead = [name for name in ranked if mine[name][0] + 2 * math.hypot(mine[name][1], error) >= least]
    told = ", ".join(f"`{name}` {mine[name][0]:+.4f} ± {mine[name][1]:.4f}" for name in ahead)
    return [f"At equal evaluations these black-box rows lead (within two errors of the third): {told}."]


def _is_black_box(name: str) -> bool:
    return METHODS.get(name).order == "zeroth"


def _against_grpo(clear: Mapping[str, float], grpo: float) -> str:
    """Say what gained most, and how often as much as ``grpo`` where that gained clearly, too."""
    best, most = next(iter(clear.items()))
    ahead = f"Of the other rows with a clear gain, `{best}` gained most in equal seconds, {most:+.4f}; "
    ahead += f"`grpo` gained {grpo:+.4f}"
    ratios = {name: gain / grpo for name, gain in clear.items()} if "grpo" in clear else {}
    more = ", ".join(f"`{name}` {ratio:.1f}" for name, ratio in ratios.items() if ratio >= 1.5)
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
    axis.set_title(title, fontsize=10, parse_math=False)  # a reward's file may have a "$"
    axis.set(xlabel="gain on held-out pictures (dots: seeds)")
    axis.set_yticks(range(len(order)), order, fontsize=8)
