"""A study as text tables for the shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def as_text(study: Mapping[str, Any]) -> str:
    """Return the study's three parts as aligned tables."""
    exact = next(point for point in study["frontier"] if point["beta"] == 1.0)
    parts = (
        _estimators(study["estimators"]),
        training_table(study["training"]),
        _influence(study["influence"]),
    )
    return "\n\n".join(parts) + (
        f"\n\nThe exact tilted law of beta 1 has reward {exact['reward']:.2f} and KL {exact['kl']:.2f}."
    )


def _estimators(rows) -> str:
    lines = ["Error of the estimators of the value guidance, per coordinate"]
    lines.append(
        f"{'family':10}{'noise':>7}  {'estimator':38}{'N':>6}{'RMSE':>9}{'bias':>9}{'std':>9}{'evals':>8}"
    )
    lines += [
        f"{row['family']:10}{row['noise']:7.3f}  {row['estimator']:38}{row['samples']:6d}{row['rmse']:9.3f}"
        f"{row['bias']:9.3f}{row['std']:9.3f}{row['evaluations']:8d}"
        for row in rows
    ]
    return "\n".join(lines)


def training_table(rows) -> str:
    """Return trained rows as an aligned table."""
    lines = ["Every row trained at equal network evaluations (share: of the initial distance that is left)"]
    lines.append(
        f"{'family':10}  {'method':28}{'share':>7}{'floor':>7}{'reward':>8}{'KL':>8}{'updates':>9}{'s':>7}"
    )
    lines += [
        f"{row['family']:10}  {row['method']:28}{row['share']:7.2f}{row['floor']:7.2f}{row['reward']:8.2f}"
        f"{row['kl']:8.2f}{row['updates']:9d}{row['seconds']:7.1f}"
        + (f"  {row['error']}" if row["error"] else "")
        for row in rows
    ]
    return "\n".join(lines)


def _influence(rows) -> str:
    lines = ["Influence: share of a row's pull in the noisy, middle and clean third of the schedule"]
    for row in rows:
        third = max(1, len(row["influence"]) // 3)
        h = row["influence"]
        parts = sum(h[:third]), sum(h[third : 2 * third]), sum(h[2 * third :])
        lines.append(f"{row['family']:10}  {row['method']:28}" + "".join(f"{part:7.2f}" for part in parts))
    return "\n".join(lines)
