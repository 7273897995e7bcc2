"""What a run's report means, in the plain sentences of a model card."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from rsm_app.hub.bases import Base
from trainers.cautions import which
from trainers.config import RunConfig
from trainers.errors import StudioError
from trainers.rewards import REWARDS, parse_mixture
from trainers.rewards.own import own_name
from trainers.terminal import printable

NORMAL_95 = 1.96
CLEAR_Z = 2.0
LOW_DIVERSITY = 0.8
FEW_PROMPTS = 20
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~])")


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, in a line or in a table's cell."""
    return _MARKS.sub(r"\\\1", " ".join(printable(text).split()))


def fenced(code: str, language: str) -> str:
    """Return lines as a block of code that none of them can end, whatever they hold.

    A fence is ended by a line of as many backticks, so this one is longer than the longest run in the code.
    """
    code = printable(code)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    return f"{fence}{language}\n{code}\n{fence}"


def reward_title(text: str) -> str:
    """Return the title of a reward, or of a mixture as its parts with weights; with functions in files as it
    is, because their files are their owner's and need not be here.
    """
    if any(map(own_name, text.split(","))):
        return text
    try:
        parts = parse_mixture(text)
    except StudioError:
        return text
    titles = [(REWARDS.get(name).title, weight) for name, weight in parts]
    return (
        titles[0][0] if len(titles) == 1 else " + ".join(f"{weight:g} × {title}" for title, weight in titles)
    )


def measures(report: Mapping) -> Iterator[tuple[str, str, tuple[float, float]]]:
    """Yield name, title and the means before and after, the optimised reward first."""
    name = str(report.get("reward", "reward"))
    values = _means(report, lambda side: side.get("reward"))
    if values:
        yield name, reward_title(name), values
    for other in report.get("after", {}).get("others", {}):
        values = _means(report, lambda side, other=other: side.get("others", {}).get(other))
        if values:
            yield other, reward_title(other), values


def summary(report: Mapping, base: str, config: RunConfig) -> str:
    """Return the card's first paragraph: what this is and whether it worked."""
    (_, title, (before, after)), *_ = [
        *measures(report),
        ("", reward_title(config.reward), (math.nan, math.nan)),
    ]
    clear = abs(report.get("paired", {}).get("z", 0.0)) >= CLEAR_Z
    word = ("rose" if after > before else "fell") if clear else "did not clearly change:"
    return (
        f"A LoRA for **{plain(base)}**, trained to raise one measured reward, **{plain(title)}**. "
        f"On {which(report, 'prompts')} that reward {word} from {before:.3f} to {after:.3f}."
    )


def bracketed(report: Mapping) -> str:
    """Return the gain with its interval, as sentences."""
    paired = report.get("paired", {})
    gain, error = float(paired.get("mean_gain", math.nan)), float(paired.get("stderr", math.nan))
    low, high = gain - NORMAL_95 * error, gain + NORMAL_95 * error
    return (
        f"Mean gain of the optimised reward over {paired.get('n', 0)} pairs of the same prompt and seed: "
        f"**{gain:+.3f}**, 95 % interval {low:+.3f} to {high:+.3f} "
        f"(clustered by prompt; z = {paired.get('z', 0.0):.1f}); "
        f"better on {paired.get('win_rate', 0.0):.0%} of the pairs, ties counting half."
    )


def limits(report: Mapping, base: Base, config: RunConfig) -> list[str]:
    """Return what a user should know before trusting the numbers, each a sentence or two."""
    found = []
    if base.embedded:
        found.append(
            f"{base.title} is a toy of a few million parameters that draws coloured shapes at 64×64 pixels; "
            "with or without this LoRA it knows nothing else."
        )
    paired = report.get("paired", {})
    if abs(paired.get("z", 0.0)) < CLEAR_Z:
        found.append("The gain is within what chance alone does, so this LoRA may do nothing of use.")
    elif paired.get("mean_gain", 0.0) < 0:
        found.append("The reward fell: this LoRA made the model worse at what it was trained for.")
    found += _paid_with(report)
    found += [plain(text) for text in noted(report)]
    found.append(
        "The reward is what was optimised, so its rise alone proves little: a model can learn to please a "
        "measurement without better pictures. Hold it against the rows that were not optimised, and against "
        "your own eyes."
    )
    if config.eval_prompts < FEW_PROMPTS:
        found.append(f"The comparison rests on {config.eval_prompts} prompts, so the true interval is wider.")
    found.append(f"One run with one seed ({config.seed}); another seed gives another result.")
    return found


def noted(report: Mapping) -> list[str]:
    """Return a report's notes, see ``trainers.notes``; a stranger's may be anything."""
    notes = report.get("notes")
    return [text for text in notes if isinstance(text, str)] if isinstance(notes, list) else []


def _paid_with(report: Mapping) -> Iterator[str]:
    for number, (name, title, (before, after)) in enumerate(measures(report)):
        errors = (
            [report[side]["others"][name].get("stderr", 0.0) for side in ("before", "after")]
            if number
            else []
        )
        if number and before - after > CLEAR_Z * math.hypot(*errors):
            yield f"{plain(title)} was not optimised and fell from {before:.3f} to {after:.3f}."
    before, after = (report.get(side, {}).get("diversity") or 0.0 for side in ("before", "after"))
    if 0 < after < LOW_DIVERSITY * before:
        yield f"Pictures of one prompt look more alike than before: diversity fell to {after / before:.0%}."


def _means(report: Mapping, part) -> tuple[float, float] | None:
    found = [part(report.get(side) or {}) for side in ("before", "after")]
    values = [entry.get("mean") if isinstance(entry, Mapping) else None for entry in found]
    if all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return float(values[0]), float(values[1])
    return None
