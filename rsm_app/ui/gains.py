"""What the pairs of one run gained: filters, the histogram and the paired statistics in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from rsm_app.ui import pictures
from rsm_app.ui.result import is_finite, number
from rsm_app.ui.theme import AFTER, BEFORE

FILTERS = {"all": "All", "improved": "Improved", "worse": "Worse"}
KINDS = {"Worse": BEFORE, "Unchanged": "#8f99a5", "Improved": AFTER}
NORMAL_95 = 1.96
FEW_PROMPTS = 20
_BINS = 24


def kind(pair: dict) -> str:
    """Say whether a pair's reward rose, fell or stayed."""
    gain = pictures.gain(pair)
    return "Improved" if gain > 0 else "Worse" if gain < 0 else "Unchanged"


def filtered(pairs: Sequence[dict], which: str) -> list[dict]:
    """Return the pairs of one of ``FILTERS``."""
    return [pair for pair in pairs if which not in ("improved", "worse") or kind(pair).lower() == which]


def interval(report: dict) -> tuple[float, float, float] | None:
    """Return the mean gain and its 95 % interval, from the standard error over prompts; None without one."""
    paired = report.get("paired") or {}
    gain, error = paired.get("mean_gain"), paired.get("stderr")
    if not is_finite(gain) or not is_finite(error):
        return None
    return gain, gain - NORMAL_95 * error, gain + NORMAL_95 * error


def histogram(pairs: Sequence[dict]) -> tuple[dict, float]:
    """Count gains by bins of a round width, in a bar plot's own form.

    Returns:
        Columns ``gain`` (a bin's middle), ``pairs`` and ``kind``; and the width of a bin.
    """
    gains = [(pictures.gain(pair), kind(pair)) for pair in pairs]
    gains = [(gain, name) for gain, name in gains if math.isfinite(gain)]
    width = _round_width(max((abs(gain) for gain, _ in gains), default=0.0))
    counts: dict[tuple[float, str], int] = {}
    for gain, name in gains:
        # A gain on a border goes away from zero, so that no bin holds both improved and worse pairs.
        number_ = math.floor(gain / width) if name != "Worse" else math.ceil(gain / width) - 1
        key = (round((number_ + 0.5) * width, 9), name)
        counts[key] = counts.get(key, 0) + 1
    order = list(KINDS)
    rows = sorted(
        ([middle, n, name] for (middle, name), n in counts.items()), key=lambda r: order.index(r[2])
    )
    types = {"gain": "quantitative", "pairs": "quantitative", "kind": "nominal"}
    return {"columns": list(types), "data": rows, "datatypes": types, "mark": "bar"}, width


def _round_width(largest: float) -> float:
    """Return 1, 2 or 5 times a power of ten, so that about ``_BINS`` bins hold everything."""
    rough = 2 * largest / _BINS
    if rough <= 0:
        return 0.1
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def statistics_html(report: dict, pairs: Sequence[dict]) -> str:
    """Return the paired statistics as figures and as sentences."""
    return (
        f'<section class="rsm-run" aria-label="Paired statistics"><dl class="rsm-figures">'
        f"{''.join(f'<div><dt>{t}</dt><dd>{escape(v)}</dd></div>' for t, v in _figures(report, pairs))}</dl>"
        f'<p class="rsm-message">{escape(_words(report, pairs))}</p></section>'
    )


def _figures(report: dict, pairs: Sequence[dict]) -> list[tuple[str, str]]:
    paired, bounds = report.get("paired") or {}, interval(report)
    kinds = [kind(pair) for pair in pairs]
    share = paired.get("win_rate")
    digits = 3
    return [
        ("Mean gain", number(bounds and bounds[0], signed=True, digits=digits)),
        ("95 % interval", _span(bounds, digits)),
        ("z", f"{paired['z']:.1f}".replace("-", "−") if is_finite(paired.get("z")) else "–"),
        ("Win rate", f"{share:.0%}" if is_finite(share) else "–"),
        *((name, str(kinds.count(name))) for name in ("Improved", "Unchanged", "Worse")),
    ]


def _span(bounds: tuple | None, digits: int) -> str:
    if bounds is None:
        return "–"
    return " to ".join(number(value, signed=True, digits=digits) for value in bounds[1:])


def _words(report: dict, pairs: Sequence[dict]) -> str:
    prompts, bounds = len({pair.get("prompt") for pair in pairs}), interval(report)
    told = [
        f"Each of the {len(pairs)} pairs is one held-out prompt and seed, drawn by the untouched model and "
        "by the trained one."
    ]
    if bounds:
        span = _span(bounds, 3).replace(" to ", " and ")
        told.append(
            f"The mean gain lies between {span} with 95 % certainty; pictures "
            f"of one prompt count together, so this rests on {prompts} prompts."
        )
        if prompts < FEW_PROMPTS:
            told.append("That is few: the true interval is wider.")
    told.append("z is the mean gain in standard errors: beyond 2 it is hardly chance. Ties count half a win.")
    return " ".join(told)
