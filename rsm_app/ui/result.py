"""A finished run in words and numbers: what the report says, also when it says that things got worse."""

from __future__ import annotations

import math
from html import escape

from rsm_app.jobs.exporting import without_folders
from trainers.cautions import which
from trainers.errors import StudioError
from trainers.rewards import REWARDS, parse_mixture

CLEAR_Z = 2.0
LOW_DIVERSITY = 0.8


def reward_title(text: str) -> str:
    """Return the title of a reward, or of a mixture as its parts with weights."""
    if text in REWARDS:
        return REWARDS.get(text).title
    try:
        parts = parse_mixture(text)
    except StudioError:
        return without_folders(text)
    titles = [f"{weight:g} × {REWARDS.get(name).title}" for name, weight in parts]
    return " + ".join(titles)


def number(value: object, signed: bool = False, digits: int | None = None) -> str:
    """Write a number with three significant digits, or ``digits`` decimals; a dash when there is none."""
    if not is_finite(value):
        return "–"
    if value == 0:
        return "0"
    digits = decimals(value) if digits is None else digits
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def decimals(*values: object) -> int:
    """Return the decimals that show the largest of some numbers with three significant digits."""
    largest = max((abs(value) for value in values if is_finite(value)), default=0.0)
    return min(6, max(0, 2 - math.floor(math.log10(largest)))) if largest else 3


def duration(seconds: object) -> str:
    """Write seconds as a person would: 45 s, 3 min 20 s, 2 h 5 min."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def verdict(report: dict) -> str:
    """Say in one or two sentences whether the reward moved and how sure that is."""
    before, after = _mean(report, "before", "reward"), _mean(report, "after", "reward")
    paired = report.get("paired") or {}
    mean_gain, z, n = paired.get("mean_gain"), paired.get("z"), paired.get("n", 0)
    moved = f"from {number(before)} to {number(after)}"
    share, drawn = paired.get("win_rate"), which(report, "pictures")
    better = f"better on {share:.0%} of {n} {drawn} (ties count half)" if is_finite(share) else ""
    evidence = "; ".join(part for part in (better, f"z = {z:.1f}" if is_finite(z) else "") if part)
    if not is_finite(z) or not is_finite(mean_gain):
        return f"Mean reward went {moved}; there are too few pictures to say how sure that is."
    if abs(z) < CLEAR_Z:
        return (
            f"No clear change: mean reward {moved} ({evidence}), within what chance alone does. "
            "A longer time budget or another reward may show more."
        )
    if mean_gain > 0:
        return f"Mean reward rose {moved}: {evidence}."
    return f"Mean reward fell {moved}: {evidence}. This run made the model worse at what it was asked for."


def warnings(report: dict) -> list[str]:
    """Say which side effects the report shows: un-optimised rewards or diversity that fell."""
    found = []
    for name, (before, after, error) in _others(report).items():
        if is_finite(before) and is_finite(after) and before - after > max(CLEAR_Z * error, 1e-9):
            found.append(
                f"{reward_title(name)} was not optimised and fell from {number(before)} to {number(after)}: "
                "part of the gain may be paid for with it."
            )
    before, after = _value(report, "before", "diversity"), _value(report, "after", "diversity")
    if is_finite(before) and is_finite(after) and before > 0 and after < LOW_DIVERSITY * before:
        found.append(
            f"Diversity fell to {after / before:.0%} of what it was: pictures of one prompt look more alike. "
            "A stronger pull towards the base model (kl_weight) or a shorter run holds it."
        )
    return found


def result_html(report: dict) -> str:
    """Return the verdict, the warnings and the table of rewards, diversity and drift."""
    paired = report.get("paired") or {}
    z = paired.get("z")
    tone = "flat" if not is_finite(z) or abs(z) < CLEAR_Z else "up" if z > 0 else "down"
    notes = "".join(f"<li>{escape(text)}</li>" for text in warnings(report))
    notes = f'<ul class="rsm-notes" aria-label="Side effects">{notes}</ul>' if notes else ""
    facts = (
        f"{report.get('updates', 0)} updates on {report.get('images_sampled', 0)} sampled pictures in "
        f"{duration(report.get('wall_seconds'))} (seed {report.get('seed', '–')})."
    )
    return (
        f'<section class="rsm-result rsm-{tone}" aria-label="Result"><p class="rsm-verdict">'
        f"{escape(verdict(report))}</p>{notes}{_table(report)}"
        f'<p class="rsm-facts">{escape(facts)}</p></section>'
    )


def _table(report: dict) -> str:
    before, after = _mean(report, "before", "reward"), _mean(report, "after", "reward")
    rows = [
        _row(
            reward_title(str(report.get("reward", "reward"))),
            "optimised",
            before,
            after,
            _error(report, "before", "reward"),
            _error(report, "after", "reward"),
        )
    ]
    for name in _others(report):
        row = [report.get(side, {}).get("others", {}).get(name) or {} for side in ("before", "after")]
        rows.append(
            _row(
                reward_title(name),
                "not optimised",
                *[r.get("mean") for r in row],
                *[r.get("stderr") for r in row],
            )
        )
    diversity = [_value(report, side, "diversity") for side in ("before", "after")]
    rows.append(_row("Diversity", "distance between pictures of one prompt", *diversity))
    if is_finite(report.get("drift")):
        rows.append(_row("Drift", "distance from the base model", None, report["drift"], change=False))
    head = "<tr><th scope='col'>Measure</th><th scope='col'>Before</th><th scope='col'>After</th>"
    return (
        '<div class="rsm-scroll"><table class="rsm-table">'
        '<caption class="rsm-hidden">Held-out measures before and after</caption>'
        f"<thead>{head}<th scope='col'>Change</th></tr></thead><tbody>{''.join(rows)}"
        "</tbody></table></div>"
    )


def _row(title, note, before, after, before_error=None, after_error=None, change=True) -> str:
    delta = after - before if change and is_finite(before) and is_finite(after) else None
    digits = decimals(before, after)
    sign = "" if not delta else " class='rsm-plus'" if delta > 0 else " class='rsm-minus'"
    cells = "".join(
        f"<td>{number(value, digits=digits)}"
        f"{f' <small>± {number(error, digits=digits)}</small>' if is_finite(error) else ''}</td>"
        for value, error in ((before, before_error), (after, after_error))
    )
    name = f"<th scope='row'>{escape(title)} <small>{escape(note)}</small></th>"
    return f"<tr>{name}{cells}<td{sign}>{number(delta, signed=True, digits=digits)}</td></tr>"


def _others(report: dict) -> dict[str, tuple[float, float, float]]:
    """Map each un-optimised reward to before, after and the standard error of their difference."""
    before = (report.get("before") or {}).get("others") or {}
    after = (report.get("after") or {}).get("others") or {}
    found = {}
    for name in before:
        one, two = before[name] or {}, after.get(name) or {}
        error = math.hypot(one.get("stderr") or 0.0, two.get("stderr") or 0.0)
        found[name] = (one.get("mean"), two.get("mean"), error)
    return found


def _value(report: dict, side: str, key: str):
    return (report.get(side) or {}).get(key)


def _mean(report: dict, side: str, key: str):
    return (_value(report, side, key) or {}).get("mean")


def _error(report: dict, side: str, key: str):
    return (_value(report, side, key) or {}).get("stderr")


def is_finite(value: object) -> bool:
    """Whether a value read from JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def pair_html(pair: dict) -> str:
    """Return the caption of one pair: prompt, seed, both rewards and their difference."""
    before, after = pair.get("reward_before"), pair.get("reward_after")
    delta = after - before if is_finite(before) and is_finite(after) else None
    sign = "" if not delta else "rsm-plus" if delta > 0 else "rsm-minus"
    return (
        f'<p class="rsm-pair"><q>{escape(str(pair.get("prompt", "")))}</q> <span>reward {number(before)} → '
        f'{number(after)} (<b class="{sign}">{number(delta, signed=True)}</b>), seed '
        f"{escape(str(pair.get('seed', '–')))}</span></p>"
    )
