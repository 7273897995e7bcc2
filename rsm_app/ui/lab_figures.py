"""The laboratory's figures as inline SVG, drawn by matplotlib in the colours of the page.

Figures are drawn in placeholder colours, which are then replaced by the page's own variables: one picture is
right in light and dark, stays sharp at every width, and follows a switch of the theme at once.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.figure import Figure

if TYPE_CHECKING:  # they bring torch, which only their makers need
    from trainers.lab.estimate import Quality
    from trainers.lab.field import Field
    from trainers.lab.pulls import Pull

INK, QUIET, LINE = "#010203", "#020304", "#030405"
GOOD, BUSY = "#050607", "#060708"
_VARIABLES = {
    INK: "var(--body-text-color)",
    QUIET: "var(--rsm-quiet)",
    LINE: "var(--rsm-line)",
    GOOD: "var(--rsm-good)",
    BUSY: "var(--rsm-busy)",
}
LONGEST = 2.2  # spacings; longer arrows are cut there
_MARKS = {"raw": "$R$", "mean": "$M$", "group": "$N$", "tilted": "$E$"}
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "rsm-studio", "font.size": 11.0}
_lock = threading.Lock()  # matplotlib's settings belong to the whole process


def field_svg(field: Field, alt: str) -> str:
    """Draw the exact and the estimated guidance over both laws; ``alt`` says what there is to see."""
    figure = Figure(figsize=(4.4, 4.3), layout="constrained")
    axis = figure.subplots()
    _style(axis)
    across, up = field.axes.numpy()
    for density, colour, dashes in ((field.reference, QUIET, "--"), (field.tilted, GOOD, "-")):
        levels = [float(density.max()) * share for share in (0.08, 0.3, 0.6, 0.9)]
        axis.contour(
            across, up, density.numpy(), levels, colors=[colour], linestyles=dashes, linewidths=1.1, alpha=0.8
        )
    scale = _scale(field)
    limit = LONGEST * field.spacing * scale
    cut = field.estimate * (limit / field.estimate.norm(dim=1).clamp(min=limit)).unsqueeze(1)
    exact, estimate = field.truth / scale, cut / scale
    places = field.points.numpy().T
    parts = (("exact", exact, INK, 0.055), ("estimated", estimate, BUSY, 0.075))
    for order, (name, arrows, colour, width) in enumerate(parts):
        axis.quiver(
            *places, *arrows.numpy().T, angles="xy", scale_units="xy", scale=1.0, units="xy",
            width=width * field.spacing, color=colour, zorder=3 + order, headwidth=4.5, headlength=5.0,
            headaxislength=4.5, alpha=0.9,
            gid=f"{name}-arrows",
        )  # fmt: skip
    axis.set(xlim=across[[0, -1]], ylim=up[[0, -1]], aspect=1)
    axis.set(xlabel="first coordinate", ylabel="second coordinate")
    return as_svg(figure, alt)


def shortened(field: Field) -> int:
    """Return how many estimated arrows are drawn shorter than they are."""
    return int((field.estimate.norm(dim=1) > LONGEST * field.spacing * _scale(field)).sum())


def _scale(field: Field) -> float:
    """Return the guidance that is drawn as long as one unit: long exact arrows just reach the next place."""
    return float(field.truth.norm(dim=1).quantile(0.95)) / (1.05 * field.spacing)


def errors_svg(qualities: Sequence[Quality], chosen: str, alt: str) -> str:
    """Draw the error of every estimator against its cost, and one of them with its bias and spread."""
    figure = Figure(figsize=(4.4, 3.9), layout="constrained")
    axis = figure.subplots()
    _style(axis)
    for name in dict.fromkeys(_line(quality) for quality in qualities):
        if name != chosen:
            _other(axis, name, [quality for quality in qualities if _line(quality) == name])
    mine = [quality for quality in qualities if _line(quality) == chosen]
    costs = [quality.evaluations for quality in mine]
    axis.plot(costs, [q.rmse for q in mine], "o-", color=BUSY, lw=2.4, ms=6, zorder=5)
    if mine[0].samples > 1:
        axis.plot(costs, [_drawable(q.bias) for q in mine], "s--", color=INK, lw=1.3, ms=4, zorder=4)
        axis.plot(costs, [_drawable(q.std) for q in mine], "^:", color=GOOD, lw=1.6, ms=5, zorder=4)
    axis.set(xscale="log", yscale="log", xlabel="network evaluations per estimate", ylabel="error")
    for side in (axis.xaxis, axis.yaxis):  # 0.1 and 1 000 as such: powers would need mathematical type
        side.set_major_formatter(lambda value, position: f"{value:,.10g}".replace(",", " "))
        side.set_minor_formatter(lambda value, position: "")
    axis.yaxis.set_minor_formatter(_twos_and_fives)
    return as_svg(figure, alt)


def _twos_and_fives(value: float, position: int) -> str:
    return f"{value:.10g}" if f"{value:e}"[0] in "25" else ""


def pulls_svg(pulls: Sequence[Pull], strokes: Sequence[tuple[str, str]], alt: str) -> str:
    """Draw the influence of methods over the schedule, each in its colour and kind of stroke."""
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    axis = figure.subplots()
    _style(axis)
    for pull, (colour, stroke) in zip(pulls, strokes, strict=False):
        steps = range(1, len(pull.shares) + 1)
        axis.plot(steps, pull.shares, color=colour, linestyle=stroke, lw=2.0, gid=f"pull-{pull.method}")
    axis.set(xlabel="sampling step", ylabel="share of the pull", xticks=range(1, len(steps) + 1, 4))
    axis.set_ylim(bottom=0.0)
    return as_svg(figure, alt)


def line_name(estimator: str) -> str:
    """Return the line of the error figure that an estimator lies on: all lookaheads share one."""
    return "gradient" if estimator.startswith("gradient") else estimator


def _line(quality: Quality) -> str:
    return line_name(quality.estimator)


def _drawable(value: float) -> float:
    """Leave zeros out of a logarithmic axis."""
    return value if value > 1e-4 else float("nan")


def _other(axis, name: str, line: Sequence[Quality]) -> None:
    mark = _MARKS.get(name.partition(",")[0], r"$\nabla$")
    style = "--" if "ODE" in name else "-"
    costs, values = [q.evaluations for q in line], [_drawable(q.rmse) for q in line]
    axis.plot(costs, values, style, marker=mark, color=QUIET, lw=0.9, ms=6.5, alpha=0.85, zorder=2)


def _style(axis) -> None:
    axis.set_facecolor("none")
    axis.grid(True, color=LINE, lw=0.7)
    axis.set_axisbelow(True)
    for spine in axis.spines.values():
        spine.set_color(LINE)
    axis.tick_params(colors=QUIET, which="both", labelcolor=QUIET)
    axis.xaxis.label.set_color(QUIET)
    axis.yaxis.label.set_color(QUIET)


def as_svg(figure: Figure, alt: str) -> str:
    """Return a figure as an inline SVG that scales with the page and has its colours.

    Args:
        figure: What was drawn, in the placeholder colours.
        alt: What a screen reader says instead.
    """
    figure.patch.set_alpha(0.0)
    drawn = io.StringIO()
    with _lock, matplotlib.rc_context(_SETTINGS):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
