"""docs/DEFAULTS.md: our defaults beside the published ones, row by row, and the reason of every difference.

``python -m trainers list --defaults-page > docs/DEFAULTS.md`` renews it; a test compares the two. No value is
typed here: ours are those of ``trainers.presets``, the published ones of ``trainers.published`` and its
tables, the reasons of ``trainers.deviations``; ``trainers.differences`` compares them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trainers.custom import CUSTOM
from trainers.deviations import SHARED
from trainers.differences import Change, Line, extensions, lines, other_models, published, reference
from trainers.method import DIFFUSION, FLOW, Method
from trainers.methods import METHODS
from trainers.models.families import ATTENTION_4, ATTENTION_8

_INTRO = """# Defaults

Every named row with the settings it begins with, beside those its authors publish, and why the two differ
where they do. *Published* is what the named program does, in the names and units of this project
(`trainers/config.py`), read from public code; nothing was executed for it. **sd35-medium** and **sd15** are
the field's reference models; no GPU was at hand, so nothing about them was measured here. **tiny-flow** and
**tiny-diffusion** are embedded and were tuned on two cores; measurements are cited by the date and heading of
their entry in docs/LOG.md.

- A value in parentheses after *GenEval* is for rewards that check what a caption asks for: `geneval`,
  `geneval_correct`, `shapes`, `shapes_exact`. All others begin with the first value, `ocr` among them, for
  which some programs have values of their own.
- Settings that agree on both models are listed below a table.
- Branches are told as "how many at which steps", the first step being 0, or step by step.
- *attention* stands for the four projections of attention layers, *both streams* for the eight of Stable
  Diffusion 3 and FLUX.
- AdamW's moments (0.9, 0.999, ε 1e-8) and a constant learning rate are the same in all programs and here.
- The published average of the weights, where `ema_every` is 8, is updated once per micro-batch of every
  eighth update on the same weights (twice in Flow-GRPO, seven times in RSM's run on GenEval); here once.
- Pictures of Stable Diffusion 3.5 are 512×512 unless a table says otherwise, and the published runs on it are
  judged with 40 deterministic steps, here with the model's normal call.
- `reward_scale` multiplies raw reward gradients there, and gradients in units of their first root mean square
  here, so only ratios of scales compare: 2 : 1 between `vgg_flow` and `rsm_first_order_flow`.
- Models without a column differ from the reference model of their family only where a line says so, and in
  the guidance and size of their normal call, which empty settings take.

This page is generated: `python -m trainers list --defaults-page > docs/DEFAULTS.md`.
"""
_SHARED = """## Reasons that many rows share

What stands in italics in the last column of a table below.
"""
_MODULES = {ATTENTION_4: "attention", ATTENTION_8: "attention, both streams"}


def defaults_page() -> str:
    """Return the page."""
    parts = [_INTRO, _SHARED, _reasons()]
    parts += [_section(method) for method in METHODS if method.name != CUSTOM]
    return "\n".join(parts)


def _reasons() -> str:
    return "".join(f"- *{label}*: {text}\n" for label, text in SHARED.items())


def _section(method: Method) -> str:
    parts = [f"## {method.name}\n"]
    for family in (FLOW, DIFFUSION):
        if family in method.families:
            parts.append(_home(method, family) if family in method.home else _extension(method, family))
    return "\n".join(part for part in parts if part)


def _home(method: Method, family: str) -> str:
    known, found = published(method.name, family), lines(method, family)
    models = reference(family)
    parts = [f"### {method.name}, {family}\n"]
    parts.append(f"{known.source}.\n" if known else "Nothing published was read for it.\n")
    told = [line for line in found if not line.agrees]
    if told:
        parts.append(
            _table(("setting", "published", *models, "why it differs"), [_cells(line) for line in told])
        )
    same = [f"`{line.field}` {_both(*line.published)}{_said(line)}" for line in found if line.agrees]
    if same:
        parts.append(f"As published: {'; '.join(same)}.\n")
    if known and known.notes:
        parts.append("".join(f"- {note}\n" for note in known.notes))
    parts.append(_others(method, family))
    return "\n".join(part for part in parts if part)


def _extension(method: Method, family: str) -> str:
    """Say what presets change of a row where no paper has it; nothing if they change nothing."""
    found = extensions(method, family)
    if not found:
        return ""
    head = f"### {method.name}, {family} (extension)\n\nNo paper has it. Presets change"
    return f"{head} {_changes(found)}.\n"


def _others(method: Method, family: str) -> str:
    """Say in what other models of the family differ from the reference model."""
    found = other_models(method, family)
    return f"Other models: {_changes(found)}.\n" if found else ""


def _changes(changes: Sequence[Change]) -> str:
    """List changes, those that are alike together."""
    merged: dict[tuple[str, str], dict[str, list[str]]] = {}
    for change in changes:
        place = (_why([change.reason]).rstrip("."), ", ".join(models_alike(change, changes)))
        merged.setdefault(place, {})[f"`{change.field}` {_both(*change.values)}"] = []
    return "; ".join(
        f"{', '.join(settings)} for {models} ({why})" for (why, models), settings in merged.items()
    )


def models_alike(change: Change, changes: Sequence[Change]) -> list[str]:
    """Return the models for which a setting changes alike, for the same reason."""
    return [
        other.model
        for other in changes
        if (other.field, other.values, other.reason) == (change.field, change.values, change.reason)
    ]


def _cells(line: Line) -> tuple[str, ...]:
    unknown = "" if line.words else "–"
    value = _both(*line.published) if line.known else unknown
    words = _said(line).strip() if value else line.words
    return (
        f"`{line.field}`",
        f"{value} {words}".strip(),
        *(_both(*pair) for pair in line.ours),
        _why(line.reasons),
    )


def _said(line: Line) -> str:
    return f" ({line.words})" if line.words else ""


def _why(reasons: Sequence[str]) -> str:
    """Join the reasons of one line; shared ones by their label."""
    return " ".join(dict.fromkeys(f"*{reason}*." if reason in SHARED else reason for reason in reasons))


def _both(plain: Any, compositional: Any) -> str:
    """Write a setting for most rewards, and for those like GenEval where it differs."""
    first, second = written(plain), written(compositional)
    return first if first == second else f"{first} (GenEval {second})"


def written(value: Any) -> str:
    """Write one value readably."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, tuple):
        return _modules(value) if value and isinstance(value[0], str) else _branches(value)
    return str(value)


def _number(value: float) -> str:
    if value == 0 or 0.01 < abs(value) < 1e4:
        return f"{value:.5g}"
    power = math.floor(math.log10(abs(value)) + 1e-9)
    return f"{value / 10**power:.4g}e{power}"


def _modules(names: tuple[str, ...]) -> str:
    for known, title in sorted(_MODULES.items(), key=lambda item: -len(item[0])):
        if names[: len(known)] == known:
            return " + ".join((title, *names[len(known) :]))
    return ", ".join(names)


def _branches(counts: tuple[int, ...]) -> str:
    taken = [step for step, count in enumerate(counts) if count]
    if not taken:
        return "none"
    if len({counts[step] for step in taken}) > 1:
        return ", ".join(map(str, counts))
    steps = ", ".join(map(str, taken))
    if len(taken) > 2 and taken == list(range(taken[0], taken[-1] + 1)):
        steps = f"{taken[0]} to {taken[-1]}"
    return f"{counts[taken[0]]} at {steps}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruled = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in ruled)
