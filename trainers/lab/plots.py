"""Pictures of a study: error against cost, distance to the tilted law, influence over the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

MARKS = "osv^D<>P*X"


def save_figure(study: Mapping[str, Any], path: Path) -> None:
    """Draw a study of ``trainers.lab.study.run_study`` into a picture file; the suffix chooses the format."""
    families = list(dict.fromkeys(row["family"] for row in study["training"]))
    figure = Figure(figsize=(6.5 * len(families), 15), layout="constrained")
    axes = figure.subplots(3, len(families), squeeze=False)
    for column, family in enumerate(families):
        _errors(axes[0][column], [row for row in study["estimators"] if row["family"] == family], family)
        _training(axes[1][column], [row for row in study["training"] if row["family"] == family], study)
        _influence(axes[2][column], [row for row in study["influence"] if row["family"] == family])
    figure.savefig(path, dpi=110)


def _errors(axis, rows, family: str) -> None:
    """RMSE against network evaluations at the middle noise level, one line per estimator."""
    levels = sorted({row["noise"] for row in rows})
    chosen = levels[len(levels) // 2]
    names = list(dict.fromkeys(row["estimator"] for row in rows if row["samples"] > 1))
    for number, name in enumerate(names):
        line = [row for row in rows if row["estimator"] == name and row["noise"] == chosen]
        style = "--" if "ODE" in name else "-"
        mark = MARKS[number % len(MARKS)]
        axis.loglog(
            [row["evaluations"] for row in line],
            [row["rmse"] for row in line],
            style + mark,
            label=name,
            ms=4,
        )
    gradients = [row for row in rows if row["samples"] == 1 and row["noise"] == chosen]
    axis.loglog(
        [row["evaluations"] for row in gradients], [row["rmse"] for row in gradients], "k*", label="gradient"
    )
    axis.set(
        title=f"{family}: error of ∇V at noise level {chosen:.2f}",
        xlabel="network evaluations per estimate",
        ylabel="RMSE per coordinate",
    )
    axis.legend(fontsize=7)


def _training(axis, rows, study: Mapping[str, Any]) -> None:
    """Reward against path KL of every trained row, over the exact frontier."""
    front = study["frontier"]
    axis.plot(
        [point["kl"] for point in front], [point["reward"] for point in front], "k-", label="exact laws"
    )
    for number, row in enumerate(rows):
        label = f"{row['method']} ({row['share']:.2f})"
        axis.plot(row["kl"], row["reward"], MARKS[number % len(MARKS)], label=label)
    axis.set(
        title="reward against KL (in brackets: share of the initial distance left)",
        xlabel="path KL to the reference (nats)",
        ylabel="mean reward",
        xscale="symlog",
    )
    axis.legend(fontsize=6)


def _influence(axis, rows) -> None:
    """h(t) of every row."""
    for number, row in enumerate(rows):
        axis.plot(
            row["noise"],
            row["influence"],
            f"-{MARKS[number % len(MARKS)]}",
            label=row["method"],
            ms=3,
            lw=0.8,
        )
    axis.set(title="influence of each step", xlabel="noise level", ylabel="share of the pull")
    axis.invert_xaxis()
    axis.legend(fontsize=6)
