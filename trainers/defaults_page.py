"""docs/DEFAULTS.md: our defaults beside the published ones, row by row, and the reason of every difference.

``python -m trainers list --defaults-page > docs/DEFAULTS.md`` renews it; a test compares the two. No value is
typed here: ours are those of ``trainers.presets``, the published ones of ``trainers.published`` and its
tables, the reasons of ``trainers.deviations``; ``trainers.differences`` compares them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from trainers.config import FIELDS
from trainers.custom import CUSTOM
from trainers.deviations import SHARED
from trainers.differences import (
    TARGETS,
    Change,
    Line,
    everywhere,
    extensions,
    lines,
    other_models,
    own,
    published,
    reference,
    usual,
)
from trainers.method import DIFFUSION, FLOW, Method
from trainers.methods import METHODS
from trainers.models.families import ATTENTION_4, ATTENTION_8
from trainers.presets import PIXEL_REWARDS
from trainers.published import KINDS, Values
from trainers.rewards import REWARDS

_INTRO = """# Defaults

Every named row with the settings it begins with, beside those its authors publish, and why the two differ
where they do. *Published* is what the named program does, in the names and units of this project
(`trainers/config.py`), read from public code; nothing was executed for it. **sd35-medium** and **sd15** are
the field's reference models; no GPU was at hand, so nothing about them was measured here. **tiny-flow** and
**tiny-diffusion** are embedded; their settings were measured where a reason says so. Measurements are cited
by the date and heading of their entry in docs/LOG.md, by the date alone where it has one entry.

- The first value is for rewards of taste and all that parentheses do not name. *GenEval* stands for rewards
  that check what a caption asks for, *OCR* for `ocr`, *pixels* for statistics of pixels and their mixtures.
  GenEval: {compositional}.
  Pixels: {pixels}.
- A table lists what differs. Below it stands what both models have as published, and what the reference model
  alone has as published, where the embedded one has the same as in every row.
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
EVERY_ROW = "What the embedded models begin with in every row"
_USUAL = f"""## {EVERY_ROW}

Unless a table below says otherwise; where it says *every row*, the reason is here.
"""
_THERE = "*every row*."
_SHARED = """## Reasons that many rows share

What stands in italics in the last column of a table.
"""
_MODULES = {ATTENTION_4: "attention", ATTENTION_8: "attention, both streams"}


def defaults_page() -> str:
    """Return the page."""
    common = [change for family in (FLOW, DIFFUSION) for change in everywhere(family)]
    parts = [_intro(), _SHARED, _reasons(), _usual()]
    parts += [f"Other models, in every row: {_changes(common)}.\n"] if common else []
    parts += [_section(method, common) for method in METHODS if method.name != CUSTOM]
    return "\n".join(parts)


def _intro() -> str:
    compositional = _names(spec.name for spec in REWARDS if spec.compositional)
    return _INTRO.format(compositional=compositional, pixels=_names(sorted(PIXEL_REWARDS)))


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _reasons() -> str:
    return "".join(f"- *{label}*: {text}\n" for label, text in SHARED.items())


def _usual() -> str:
    """Tell what the embedded models have for every row."""
    told = [usual(family) for family in (FLOW, DIFFUSION)]
    models = [reference(family)[1] for family in (FLOW, DIFFUSION)]
    merged: dict[str, list[str]] = {}  # settings that have one reason share a line
    for name in (TARGETS, *FIELDS):
        if why := _why([one[name] for one in told if name in one]):
            merged.setdefault(why, []).append(name)
    rows = [
        (_names(names), *(", ".join(written(own(model, name)) for name in names) for model in models), why)
        for why, names in merged.items()
    ]
    return "\n".join((_USUAL, _table(("setting", *models, "why"), rows)))


def _section(method: Method, common: Sequence[Change]) -> str:
    families = [family for family in (FLOW, DIFFUSION) if family in method.families]
    parts = [
        _home(method, family, common) if family in method.home else _extension(method, family)
        for family in families
    ]
    return "\n".join(part for part in parts if part)


def _home(method: Method, family: str, common: Sequence[Change]) -> str:
    known, found = published(method.name, family), lines(method, family)
    models = reference(family)
    parts = [f"## {method.name}, {family}\n"]
    parts.append(f"{known.source}.\n" if known else "Nothing published was read for it.\n")
    usual = [line for line in found if line.models == line.usual == models[1:]]
    told = [line for line in found if not line.agrees and line not in usual]
    if told:
        parts.append(
            _table(("setting", "published", *models, "why it differs"), [_cells(line) for line in told])
        )
    parts.append(_listed("As published", (line for line in found if line.agrees)))
    parts.append(_listed(f"As published on {models[0]} alone", usual))
    if known and known.notes:
        parts.append("".join(f"- {note}\n" for note in known.notes))
    others = [change for change in other_models(method, family) if change not in common]
    parts.append(f"Other models: {_changes(others)}.\n" if others else "")
    return "\n".join(part for part in parts if part)


def _listed(title: str, found: Iterable[Line]) -> str:
    """List settings that need no table; nothing if there are none."""
    told = [f"`{line.field}` {together(line.published)}{_said(line)}" for line in found]
    return f"{title}: {'; '.join(told)}.\n" if told else ""


def _extension(method: Method, family: str) -> str:
    """Say what presets change of a row where no paper has it; nothing if they change nothing."""
    found = extensions(method, family)
    if not found:
        return ""
    head = f"## {method.name}, {family} (extension)\n\nNo paper has it. Presets change"
    return f"{head} {_changes(found)}.\n"


def _changes(changes: Sequence[Change]) -> str:
    """List changes: those for one reason together, and of these those that are alike."""
    merged: dict[str, dict[str, dict[str, list[str]]]] = {}
    for change in changes:
        models = merged.setdefault(_why([change.reason]).rstrip("."), {}).setdefault(change.field, {})
        models.setdefault(together(change.values), []).append(change.model)
    return "; ".join(f"{_alike(settings)} ({why})" for why, settings in merged.items())


def _alike(settings: dict[str, dict[str, list[str]]]) -> str:
    """Write setting → value → models; models that all settings have in common once."""
    common = {tuple(models) for given in settings.values() for models in given.values()}
    if len(common) == 1:
        told = [f"`{name}` {value}" for name, given in settings.items() for value in given]
        return f"{', '.join(told)} for {', '.join(*common)}"
    return ", ".join(
        f"`{name}` " + ", ".join(f"{value} for {', '.join(models)}" for value, models in given.items())
        for name, given in settings.items()
    )


def _cells(line: Line) -> tuple[str, ...]:
    unknown = "" if line.words else "–"
    value = together(line.published) if line.known else unknown
    words = _said(line).strip() if value else line.words
    ours = map(together, line.ours)
    reasons = [
        _THERE if model in line.usual else why for model, why in zip(line.models, line.reasons, strict=True)
    ]
    return f"`{line.field}`", f"{value} {words}".strip(), *ours, _why(reasons)


def _said(line: Line) -> str:
    return f" ({line.words})" if line.words else ""


def _why(reasons: Sequence[str]) -> str:
    """Join the reasons of one line; shared ones by their label."""
    return " ".join(dict.fromkeys(f"*{reason}*." if reason in SHARED else reason for reason in reasons))


def together(values: Values) -> str:
    """Write a setting for most rewards, and for the kinds of rewards for which it differs."""
    first, *others = map(written, values)
    kinds: dict[str, list[str]] = {}
    for kind, text in zip(KINDS[1:], others, strict=False):
        if text != first:
            kinds.setdefault(text, []).append(kind)
    said = "; ".join(f"{', '.join(names)} {text}" for text, names in kinds.items())
    return f"{first} ({said})" if said else first


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
