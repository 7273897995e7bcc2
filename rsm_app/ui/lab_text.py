"""What the laboratory page says: explanations with their equations, captions, keys and tables.

Equations are LaTeX, which Gradio sets in the browser with files of its own, so no network is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from trainers.methods import METHODS

if TYPE_CHECKING:  # they bring torch, which only their makers need
    from trainers.lab.estimate import Quality
    from trainers.lab.field import Field
    from trainers.lab.pulls import Pull

DELIMITERS = [{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}]

INTRO = (
    '<section class="rsm-words"><h2>Laboratory</h2><p>Here a “picture” is a point in the plane, the base '
    "model is a mixture of three round clouds, and the reward grows steadily to the left. On this small "
    "problem everything that training must estimate is known exactly, so the error of every method can be "
    "seen. The code is that of real runs; only the network is a perfect one.</p></section>"
)
FIELD = r"""## 1 · Where the estimator points

Training should add the *value guidance* $\nabla V$ to the model's score: thin arrows show it exactly, thick
coloured arrows show what the chosen estimator makes of it at the same places. Dashed rings are the base
model's law at this noise level, solid rings the law that training should reach.

$$\nabla V_t(x)=\nabla_x\log\mathbb{E}\big[e^{r(x_0)/\beta}\,\big|\,x_t=x\big]$$

$$\hat\Psi=\frac{\sigma}{\kappa}\,\frac1N\sum_{i=1}^{N}\hat A_i\,\varepsilon_i\quad\text{(zeroth order)}$$

$$\hat\Psi=\tfrac1\beta\,\nabla_x\,r\big(\hat x_0(x)\big)\quad\text{(first order)}$$
"""
ERRORS = r"""## 2 · What an estimate costs

An estimate can be wrong in two ways: *bias* is the error that stays however many samples are drawn, *spread*
is the difference between one draw and the next. The figure shows the whole error (root mean square, RMSE) and
its parts against the number of times the network is run, averaged over places that the law to reach visits.

$$\text{RMSE}^2=\text{bias}^2+\text{spread}^2$$
"""
PULLS = r"""## 3 · Where in the schedule a method learns

$h(t)$ is the share of a method's pull on the network that falls on one sampling step, if rewards and
gradients were equally large at all of them. First-order estimates are worst at noisy steps: on flows all
first-order methods pull less there than at clean ones, on diffusion models not all do. Zeroth-order methods
differ more: those that branch at chosen steps pull at these alone, GRPO pulls most at clean ones.

$$h(t)=\frac{W_1(t)\,\gamma(t)\,\lVert G_t\rVert}{\sum_s W_1(s)\,\gamma(s)\,\lVert G_s\rVert}$$

The letters are those of the one loss on the About page: $W_1$ says how much a step counts, $\gamma$ how far
the network's output should go, and $G$ where to. $G$ is $\hat\Psi$ in units of that output.
"""
FAMILY_INFO = (
    "What the network predicts, and how a point is noised. Sets the injected noise to its exact value."
)
ADVANTAGE_INFO = (
    "The exponential one contains β, the others are divided by it. The normalised one forgets the scale of "
    "the reward."
)
NOISE_INFO = "1 is pure noise, 0 is clean. The nearest of 25 sampling steps is used."
INJECTED_INFO = (
    "a for flows, η for diffusion. With 1.4 (flows) or 1.0 (diffusion) a rollout reverses the noising, as "
    "far as 25 steps can; less noise makes zeroth-order arrows too short. Training uses 0.7 for flows."
)
_BRANCHING = ", ".join(method.title for method in METHODS if method.branching == "per_step")
BRANCHING_INFO = (
    f"Moves only methods that branch at chosen steps: {_BRANCHING}. How many branches leave a step does not "
    "matter here."
)
_WAITING = "Drawing the {what}. The first time takes a few seconds, while the numerical library loads."


def _swatch(kind: str, words: str) -> str:
    return f'<li><i class="rsm-stroke-{kind}" aria-hidden="true"></i>{words}</li>'


FIELD_KEY = "".join(
    _swatch(kind, words)
    for kind, words in (
        ("exact", "exact guidance ∇V"),
        ("estimate", "the estimate"),
        ("reference", "base model"),
        ("tilted", "law to reach"),
    )
)
ERRORS_KEY = "".join(
    _swatch(kind, words)
    for kind, words in (
        ("estimate", "error of the chosen estimator"),
        ("bias", "its bias"),
        ("spread", "its spread"),
        ("other", "errors of the others: advantage R raw, M mean, N normalised, E exponential; ∇ gradient"),
        ("localised", "the same with one noisy step"),
    )
)


# Colours that most eyes tell apart, visible on white and near-black; with three strokes they name 24 lines.
_COLOURS = ("#1d998c", "#d1741a", "#7b6ad0", "#c9417f", "#5b9b2f", "#3a87d6", "#a8893a", "#c2483c")
STROKES = tuple((_COLOURS[i % 8], ("solid", "dashed", "dotted")[i % 3]) for i in range(24))
PULLS_CAPTION = (
    "Share of the pull on each of the 25 sampling steps, from pure noise (1) to the clean picture (25)."
)


def waiting(what: str) -> str:
    """Return what stands in a figure's place until it is drawn."""
    return f'<p class="rsm-figure-wait" role="status" aria-busy="true">{_WAITING.format(what=what)}</p>'


def problems(sentences: Sequence[str]) -> str:
    """Return what is wrong with the choices, as a list."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="rsm-problems" role="alert"><b>This cannot be drawn:</b><ul>{items}</ul></div>'


def figure(svg: str, key: str, caption: str) -> str:
    """Return a figure with its key and caption; the SVG is taken as it is."""
    listed = f'<ul class="rsm-strokes">{key}</ul>' if key else ""
    return f'<figure class="rsm-figure">{svg}{listed}<figcaption>{escape(caption)}</figcaption></figure>'


def field_caption(field: Field, shortened: int, longest: float) -> str:
    """Say in words how far the estimate is from the exact guidance."""
    share = field.rmse / field.size if field.size > 0 else 0.0
    words = (
        f"At noise level {field.noise:.2f} the estimate misses the exact guidance by {field.rmse:.2f} per "
        f"coordinate, {share:.0%} of its size {field.size:.2f}. "
        f"{_evaluations(field.evaluations).capitalize()} per arrow."
    )
    if shortened:
        arrows = "1 arrow is" if shortened == 1 else f"{shortened} arrows are"
        words += f" {arrows} longer than drawn: arrows end at {longest:g} times the distance between places."
    return words


def _evaluations(count: int) -> str:
    return "one run of the network" if count == 1 else f"{count:,} runs of the network".replace(",", " ")


def _title(estimator: str) -> str:
    """Return an estimator's name as a person reads it."""
    kind, _, way = estimator.partition(", ")
    kind = {"group": "normalised", "tilted": "exponential"}.get(kind, kind)
    return f"{kind}, {way.replace('SDE step', 'noisy step')}".replace("noisy step, then ODE", "noisy step")


def _mine(qualities: Sequence[Quality], chosen: str, samples: int) -> Quality:
    return next(q for q in qualities if q.estimator == chosen and q.samples in (1, samples))


def errors_caption(qualities: Sequence[Quality], chosen: str, samples: int) -> str:
    """Say in words what the chosen estimator's error is made of."""
    mine = _mine(qualities, chosen, samples)
    title = _title(chosen)
    words = f"{title[0].upper()}{title[1:]}: error {mine.rmse:.3f} for {_evaluations(mine.evaluations)}"
    if mine.samples == 1:
        return f"{words}. A gradient is not random: its error is all bias, and more depth need not lower it."
    more = "more samples help" if mine.std > mine.bias else "more samples would hardly help"
    return f"{words}, made of bias {mine.bias:.3f} and spread {mine.std:.3f}: {more}."


def errors_table(qualities: Sequence[Quality], chosen: str, samples: int) -> str:
    """Return every estimator at the chosen number of samples, the best first."""
    rows = sorted((q for q in qualities if q.samples in (1, samples)), key=lambda q: q.rmse)
    body = "".join(
        f'<tr{_current(q.estimator == chosen)}><th scope="row">{escape(_title(q.estimator))}</th>'
        f"<td>{q.rmse:.3f}</td><td>{q.bias:.3f}</td><td>{'none' if q.samples == 1 else f'{q.std:.3f}'}</td>"
        f"<td>{q.evaluations:,}</td></tr>"
        for q in rows
    )
    heads = ("Estimator", "Error", "Bias", "Spread", "Network runs")
    return _table(f"With {samples} samples, the best first. The chosen one is marked.", heads, body)


def shares_table(found: Sequence[Pull]) -> str:
    """Return how much of each method's pull falls on each third of the schedule."""
    body = "".join(
        f'<tr><th scope="row"><i class="rsm-stroke" style="border-top: 4px {stroke} {colour} !important"></i>'
        f"{escape(METHODS.get(pull.method).title)}</th>"
        + "".join(f"<td>{third:.0%}</td>" for third in pull.thirds())
        + f"<td>{pull.trained}</td></tr>"
        for pull, (colour, stroke) in zip(found, STROKES, strict=False)
    )
    heads = ("Method", "Noisy third", "Middle third", "Clean third", "Steps trained")
    return _table("Share of the pull in each third of the schedule.", heads, body)


def pulls_alt(found: Sequence[Pull]) -> str:
    """Say in words where each method learns."""
    parts = [
        f"{METHODS.get(pull.method).title}: {pull.thirds()[0]:.0%} in the noisy third of the steps, "
        f"{pull.thirds()[2]:.0%} in the clean third."
        for pull in found
    ]
    return " ".join(["Influence over the schedule.", *parts])


def _current(chosen: bool) -> str:
    return ' class="rsm-chosen" aria-current="true"' if chosen else ""


def _table(caption: str, heads: Sequence[str], body: str) -> str:
    head = "".join(f'<th scope="col">{title}</th>' for title in heads)
    return (
        f'<div class="rsm-scroll" role="region" aria-label="{caption}" tabindex="0"><table class="rsm-table">'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
