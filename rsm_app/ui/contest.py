"""Several finished runs as data: their curves, the table of their gains, and what they share.

Runs are called A, B, C, … in the order in which they were chosen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from rsm_app.jobs.store import Run
from rsm_app.ui import curves, gains, pictures
from rsm_app.ui.cached import of_runs
from rsm_app.ui.live import run_title
from rsm_app.ui.result import decimals, duration, is_finite, number, reward_title
from rsm_app.ui.sight import metrics_of, probes_of
from rsm_app.ui.theme import SERIES

MIN_RUNS, MAX_RUNS = 2, len(SERIES)
LETTERS = "ABCDEF"
AXES = {"step": "Updates", "images_sampled": "Sampled pictures", "seconds": "Seconds"}
_POINTS = 1200


@dataclass(frozen=True)
class Entry:
    """One run of the comparison, read once."""

    letter: str
    colour: str
    run: Run
    report: dict
    settings: dict

    @property
    def title(self) -> str:
        """What the run does, in one line."""
        return run_title(self.settings)


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Name runs and read their reports."""
    rows = zip(LETTERS, SERIES, runs, strict=False)
    return [Entry(n, c, run, run.folder.read_report() or {}, run.settings()) for n, c, run in rows]


def colours(chosen: Sequence[Entry]) -> dict[str, str]:
    """Return each run's colour by its letter."""
    return {entry.letter: entry.colour for entry in chosen}


def training_curves(chosen: Sequence[Entry], metric: str, axis: str) -> dict:
    """Return one metric of every run over an axis, in a line plot's own form."""
    limit = _POINTS // max(1, len(chosen))
    rows = []
    for entry in chosen:
        lines = [line for line in metrics_of(entry.run.folder.metrics) if is_finite(line.get(metric))]
        rows += _rows(entry, _with_last(curves.thin(lines, limit), lines), metric, axis)
    return _plot(rows, axis)


def heldout_curves(chosen: Sequence[Entry], axis: str) -> dict:
    """Return the held-out reward of every run: what it looked at while training, else before and after."""
    rows = []
    for entry in chosen:
        lines = _probes(entry.run) or _ends(entry)
        rows += _rows(entry, curves.thin(lines, _POINTS // max(1, len(chosen))), "value", axis)
    return _plot(rows, axis)


def probed(chosen: Sequence[Entry]) -> list[str]:
    """Return the letters of the runs that looked at held-out prompts while training."""
    return [entry.letter for entry in chosen if _probes(entry.run)]


def _probes(run: Run) -> list[dict]:
    """Return the mean held-out reward of each look during training, at its update."""
    lines = [line for line in metrics_of(run.folder.metrics) if is_finite(line.get("step"))]
    steps = [line["step"] for line in lines]
    found = []
    for line in probes_of(run.folder.probes):
        rewards = line.get("reward")
        values = [v for v in rewards if is_finite(v)] if isinstance(rewards, list) else []
        if values:
            # Of a long run not every update is read: the pictures of the last one before the look.
            before = bisect_right(steps, line["step"]) if is_finite(line.get("step")) else None
            drawn = lines[before - 1].get("images_sampled") if before else before
            found.append(line | {"value": sum(values) / len(values), "images_sampled": drawn})
    return found if len(found) >= 2 else []


def _ends(entry: Entry) -> list[dict]:
    """Return the comparison's means as the two ends of a line."""
    before, after = _mean(entry, "before"), _mean(entry, "after")
    last = (metrics_of(entry.run.folder.metrics) or [{}])[-1]
    start = dict.fromkeys(AXES, 0) | {"value": before}
    return [start, {axis: last.get(axis) for axis in AXES} | {"value": after}]


def _rows(entry: Entry, lines: Sequence[dict], key: str, axis: str) -> list[list]:
    found = [(line.get(axis), line.get(key)) for line in lines]
    return [[x, float(y), entry.letter] for x, y in found if is_finite(x) and is_finite(y)]


def _with_last(thinned: list[dict], lines: list[dict]) -> list[dict]:
    return thinned if not lines or thinned[-1] is lines[-1] else [*thinned, lines[-1]]


def _plot(rows: list[list], axis: str) -> dict:
    types = {axis: "quantitative", "value": "quantitative", "run": "nominal"}
    return {"columns": list(types), "data": rows, "datatypes": types, "mark": "line"}


# -- table -------------------------------------------------------------------------------------------


def table_html(chosen: Sequence[Entry]) -> str:
    """Return the runs' gains as a table, with what to keep in mind above it."""
    head = (
        "Run",
        "Held-out reward",
        "Mean gain",
        "95 % interval",
        "z",
        "Win rate",
        "Updates",
        "Time",
        "Drift",
    )
    heads = [
        *head,
        *(f"{reward_title(name)}, change" for name in shared_rewards(chosen)),
        "Diversity, change",
    ]
    cells = "".join(f"<th scope='col'>{escape(title)}</th>" for title in heads)
    rows = "".join(_table_row(entry, shared_rewards(chosen)) for entry in chosen)
    notes = "".join(f"<li>{escape(text)}</li>" for text in caveats(chosen))
    notes = f'<ul class="rsm-notes" aria-label="Keep in mind">{notes}</ul>' if notes else ""
    return (
        f'<section class="rsm-result" aria-label="Gains">{notes}'
        '<div class="rsm-scroll" tabindex="0" role="region" aria-label="Table of gains, scrolls sideways">'
        '<table class="rsm-table rsm-contest">'
        '<caption class="rsm-hidden">Gains of the chosen runs</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _table_row(entry: Entry, others: Sequence[str]) -> str:
    report, paired = entry.report, entry.report.get("paired") or {}
    bounds, share, z = gains.interval(report), paired.get("win_rate"), paired.get("z")
    before, after = _mean(entry, "before"), _mean(entry, "after")
    digits = decimals(before, after)
    span = " to ".join(number(v, signed=True, digits=digits) for v in bounds[1:]) if bounds else "–"
    plain = [
        f"{number(before, digits=digits)} → {number(after, digits=digits)}",
        _change(bounds and bounds[0], digits),
        span,
        f"{z:.1f}".replace("-", "−") if is_finite(z) else "–",
        f"{share:.0%}" if is_finite(share) else "–",
        str(report.get("updates", "–")),
        duration(report.get("wall_seconds")),
        number(report.get("drift")),
    ]
    plain += [_change(_difference(*_both(report, name)), 3) for name in others]
    sides = [(report.get(side) or {}).get("diversity") for side in ("before", "after")]
    plain.append(_change(_difference(*sides), 3))
    known = f"{entry.run.id}, seed {report.get('seed', '–')}"
    name = (
        f"<th scope='row'><i class='rsm-dot' style='background:{entry.colour}'></i>{entry.letter} · "
        f"{escape(entry.title)} <small>{escape(known)}</small></th>"
    )
    return f"<tr>{name}{''.join(f'<td>{text}</td>' for text in map(_cell, plain))}</tr>"


def _cell(text: str) -> str:
    return text if text.startswith("<b ") else escape(text)


def _change(value: object, digits: int) -> str:
    if not is_finite(value) or not value:
        return number(value)
    tone = "rsm-plus" if value > 0 else "rsm-minus"
    return f"<b class='{tone}'>{number(value, signed=True, digits=digits)}</b>"


def _difference(before: object, after: object) -> float | None:
    return after - before if is_finite(before) and is_finite(after) else None


def _both(report: dict, name: str) -> tuple:
    """Return a reward's means before and after, optimised or not."""
    found = []
    for side in ("before", "after"):
        part = report.get(side) or {}
        entry = part.get("reward") if report.get("reward") == name else (part.get("others") or {}).get(name)
        found.append((entry or {}).get("mean"))
    return tuple(found)


def _mean(entry: Entry, side: str):
    return ((entry.report.get(side) or {}).get("reward") or {}).get("mean")


def shared_rewards(chosen: Sequence[Entry]) -> list[str]:
    """Return the rewards that every run's comparison measured, but not one that all were trained on."""
    names: list[list[str]] = []
    for entry in chosen:
        others = list((entry.report.get("before") or {}).get("others") or {})
        names.append([str(entry.report.get("reward", "")), *others])
    common = [
        name for name in dict.fromkeys(n for row in names for n in row) if all(name in r for r in names)
    ]
    return [name for name in common if any(entry.report.get("reward") != name for entry in chosen)]


def caveats(chosen: Sequence[Entry]) -> list[str]:
    """Say what makes the runs' numbers hard to compare."""
    told = []
    if len({entry.report.get("reward") for entry in chosen}) > 1:
        told.append(
            "These runs were trained on different rewards. Their gains are in different units: compare the "
            "columns of rewards that all of them measured, not the gains."
        )
    if len({entry.report.get("model") for entry in chosen}) > 1:
        told.append("These runs start from different base models, so their pictures before differ too.")
    if len({(entry.report.get("paired") or {}).get("n") for entry in chosen}) > 1:
        told.append(
            "Their comparisons hold different numbers of pictures; the intervals take this into account."
        )
    return told


# -- pictures ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shared:
    """What the runs drew alike: rows of one pair a run, and what the person should know about them."""

    rows: list[tuple[dict, ...]]
    sentence: str


def shared_pairs(chosen: Sequence[Entry]) -> Shared:
    """Find the pictures of the same prompt and seed in every run; else of the same prompt."""
    drawn = [entry.run.folder.read_pairs() for entry in chosen]
    same = _matched(drawn, lambda pair, _: (pair.get("prompt"), pair.get("seed")))
    if same:
        return Shared(same, f"All of them drew {len(same)} pictures of the same prompts with the same seeds.")
    alike = _matched(drawn, lambda pair, number_: (pair.get("prompt"), number_))
    if alike:
        return Shared(
            alike,
            f"No seed is shared, because the runs' own seeds or sizes differ. Shown are {len(alike)} "
            "pictures of the same prompts with different seeds, so they differ by chance as well.",
        )
    return Shared([], "These runs have no held-out prompt in common, so no pictures can be set side by side.")


def _matched(drawn: Sequence[Sequence[dict]], key) -> list[tuple[dict, ...]]:
    tables = []
    for pairs in drawn:
        seen: dict = {}
        table: dict = {}
        for pair in pairs:
            prompt = pair.get("prompt")
            table[key(pair, seen.get(prompt, 0))] = pair
            seen[prompt] = seen.get(prompt, 0) + 1
        tables.append(table)
    return [tuple(table[k] for table in tables) for k in tables[0] if all(k in table for table in tables)]


def strips(chosen: Sequence[Entry], shared: Shared, size: int) -> list[tuple[Image.Image, str]]:
    """Return one picture a row: before, unless the base models or seeds differ, then after of each run."""
    found = []
    before = shows_before(chosen, shared)
    for row in shared.rows[:size]:
        drawn = [pictures.open_sample(e.run, p.get("after")) for e, p in zip(chosen, row, strict=True)]
        if before:
            drawn.insert(0, pictures.open_sample(chosen[0].run, row[0].get("before")))
        if all(drawn):
            shown = of_runs(pictures.side_by_side(drawn), [entry.run for entry in chosen])
            found.append((shown, _strip_caption(chosen, row, before)))
    return found


def shows_before(chosen: Sequence[Entry], shared: Shared) -> bool:
    """Whether one picture of the untouched model stands for all runs of a row."""
    seeds = all(len({pair.get("seed") for pair in row}) == 1 for row in shared.rows)
    return seeds and len({entry.report.get("model") for entry in chosen}) == 1


def _strip_caption(chosen: Sequence[Entry], row: Sequence[dict], before: bool) -> str:
    same = len({entry.report.get("reward") for entry in chosen}) == 1
    told = [f"before {_two(row[0].get('reward_before'))}"] if before and same else []
    told += [f"{e.letter} {_two(p.get('reward_after'))}" for e, p in zip(chosen, row, strict=True)]
    seeds = {pair.get("seed") for pair in row}
    seed = f" · seed {row[0].get('seed')}" if len(seeds) == 1 else ""
    return f"{' · '.join(told)} · {row[0].get('prompt', '')}{seed}"


def _two(value: object) -> str:
    return f"{value:.2f}" if is_finite(value) else "?"
