"""docs/METHODS.md, written from the method table so that it cannot drift.

``python -m trainers list --methods-page > docs/METHODS.md`` renews it; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.comparison_report import findings, tables
from trainers.custom import CHOICES, CUSTOM
from trainers.lab.gaps import section
from trainers.method import Method
from trainers.methods import METHODS
from trainers.run_folder import read_lines

_DOCS = Path(__file__).resolve().parents[1] / "docs"
RECORDS, LABORATORY = _DOCS / "comparison.jsonl", _DOCS / "laboratory.jsonl"
_COMPARED = """## Compared on pictures

Every row that fits a tiny model, trained on one thread for equal seconds and for equal network evaluations;
gain of the reward on held-out pictures, mean ± standard error over seeds. Settings are each row's defaults on
that model (DEFAULTS.md): for the RSM rows branches, rate, clip and the KL for pixel statistics were chosen by
measurements on these models, for most others what is published was taken over. The records are
docs/comparison.jsonl, written by `python -m trainers bench methods`.

![Gain of every method, at equal seconds and at equal network evaluations](images/methods.png)
"""

_INTRO = """# Methods

Every method here is one loss with other settings. With o_θ the output of the trained network, o_ref of the
base model and o_old of the policy that made the rollout (all at the same noisy state, means over elements),

    L = W1·‖ o_θ − (o_anchor + γ·G) ‖² + W2·‖ o_θ − o_old ‖² + β·κ·‖ o_θ − o_ref ‖²

G is the guidance: an estimate of the value's gradient, in units of the network's output. A step's kernel is
x' ~ N(μ, σ²) with k = ∂μ/∂o, natural weight λ = k²/(2σ²) and log-ratio
ℓ = −λ‖Δo‖² + (k/σ)⟨ε, Δo⟩, Δo = o_θ − o_old. κ says what β multiplies: λ, the KL of a sampling step; λΔ, as
programs have it that divide by 2τ² = 2σ²/Δ; or 1.

A row is also how rewards are compared, how a rollout is split into updates, what is left out of a mean and
which network is differentiated. `tests/updates` derives the whole update of every row again from formulas,
with statistics, random splits, weights, KL, anchors and guidance, and compares the gradient that the
optimizer is given: in float64, at the old policy and after an update where the trust region acts, the
relative error is below 1e-6. DEFAULTS.md lists our settings beside the published ones.

This page is generated: `python -m trainers list --methods-page > docs/METHODS.md`.
"""

_WEIGHTS = {
    "natural": "λ",
    "natural_scaled": "λ·τ/√Δ",
    "noise_aware": "λ·σ/mean σ",
    "schedule_mean": "λ with k/σ replaced by its schedule mean",
    "interval": "λ with k/σ replaced by ζΔ",
    "forward_one": "1",
    "forward_noise": "t",
    "forward_noise_squared": "t²",
    "forward_huber": "t·(‖o − u‖² + ε)^(p − 1), generalized Huber",
    "one": "1",
    "clean_error": "(∂x̂0/∂o)²",
    "contrast": "b·(∂x̂0/∂o)²/mean|x̂0 − x0|",
    "inverse_variance": "k²/σ²",
    "score": "k²/σ⁴",
    "kl_natural": "β·λ",
}
_STRENGTHS = {
    "one": "1",
    "clean_share": "(1 − t)",
    "clean_share_squared": "(1 − t)²",
    "next_clean_share_squared": "ᾱ'",
    "inverse_kl": "1/β",
    "discounted": "discount^(steps left)/β",
}
_FORMS = {
    "ratio": "−min(ρÂ, clip(ρ, 1 ± c)Â), ρ = exp(ℓ)",
    "matching": "max(0, c|Â| − Âℓ)",
    "regression": "the squared loss itself",
}
_TRUST = {
    "clip": "clip on ℓ",
    "fair_clip": "clip on σ²ℓ, the same mean shift at every step",
    "normalised_clip": "clip on σ(ℓ + λ‖Δo‖²)",
    "old": "W2 = old_weight",
    "none": "none",
}
_AVERAGE = {
    "none": "",
    "rollout": "a lagging average of the weights makes the rollouts",
    "pull": "W2‖o_θ − o_average‖²",
}
_NETWORKS = {"trained": "network", "base": "base model's network"}
_ROLLOUTS = {
    "trajectory": "whole stochastic trajectories",
    "tree": "stochastic trajectories that split (branches)",
    "per_step": "deterministic paths with branches at chosen steps (branches)",
    "none": "deterministic trajectories",
}
_KL = {
    "none": "none",
    "rows": "on trained rows",
    "anchors": "on a share of the deterministic steps alone",
    "all": "on trained rows, and where anchor_fraction is above 0 on deterministic steps",
}
_KL_SCALES = {"transition": "β·λ", "rate": "β·λΔ (2τ² in the place of 2σ²)", "output": "β"}


def methods_page(records: Path = RECORDS, laboratory: Path = LABORATORY) -> str:
    """Return the page; the files hold the comparison on pictures and the laboratory's trainings."""
    named = [method for method in METHODS if method.name != CUSTOM]
    parts = [_INTRO, _overview(named), *map(_section, named), _custom(METHODS.get(CUSTOM))]
    compared = read_lines(records)
    if compared:
        parts += [_COMPARED, tables(compared), "What did not work, and what did:\n", findings(compared)]
    trained = read_lines(laboratory)
    if trained:
        parts.append(section(trained))
    return "\n".join(parts)


def guidance(method: Method) -> str:
    """Write the guidance G of a row as an equation."""
    if method.order == "first":
        where = {
            "terminal": "∇r at the finished picture",
            "current": "∇r at the present clean estimate",
            "next": f"∇r at the next state, through the {_NETWORKS[method.lookahead_network]}",
        }[method.lookahead]
        return ("−" if method.form == "clean" else "(σ²/k)·") + where
    if method.branching == "none":
        return "Â·(u − o_old) at re-noised finished pictures"
    return "(σ/k)·Â·ε"


def _overview(methods: list[Method]) -> str:
    lines = [
        "| name | reads | families | rollouts | G | W1 | γ | anchor | trust region |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        cells = (
            f"[`{method.name}`](#{method.name})",
            "reward gradients" if method.order == "first" else "reward values",
            _families(method),
            _ROLLOUTS[method.branching],
            guidance(method),
            _WEIGHTS[method.weight],
            _gamma(method),
            f"o_{method.anchor}",
            _trust(method),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _gamma(method: Method) -> str:
    if method.objective != "regression":
        return "1"
    gamma = _STRENGTHS[method.strength]
    return "1/b" if method.normalised else gamma


def _families(method: Method) -> str:
    """Name the families, and mark those that the row's paper does not treat."""
    return ", ".join(
        family if family in method.home else f"{family} (extended)" for family in method.families
    )


def settings(method: Method) -> dict[str, str]:
    """Return what a row sets, part by part, in words and equations."""
    rows = {
        "works with": _families(method),
        "needs": "a differentiable reward" if method.order == "first" else "any reward",
        "rollouts": _ROLLOUTS[method.branching],
        "guidance G": guidance(method),
        "W1": _WEIGHTS[method.weight],
        "γ": _gamma(method),
        "form": _FORMS[method.objective],
        "trust region": _trust(method),
        "KL": _KL[method.kl] if method.kl == "none" else f"{_KL_SCALES[method.kl_scale]} {_KL[method.kl]}",
        "source": method.origin,
    }
    if method.defaults:
        rows["own settings"] = _written(method.defaults)
    for kind, changed in (("what a caption asks for", method.compositional), ("`ocr`", method.ocr)):
        if changed:
            rows[f"for rewards of {kind}"] = _written(changed)
    return rows


def _trust(method: Method) -> str:
    """Say what holds the policy near the one that made the rollout, or near an average of itself."""
    parts = [_TRUST[method.trust_region], _AVERAGE[method.average]]
    return "; ".join(part for part in parts if part and part != "none") or "none"


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _section(method: Method) -> str:
    rows = settings(method)
    table = "\n".join(f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows.items())
    return f"## {method.name}\n\n{method.title}. {method.idea}\n\n| | |\n|---|---|\n{table}\n"


def _custom(method: Method) -> str:
    lines = [
        f"## {method.name}\n",
        f"{method.idea}\n",
        "| part | values (the first in bold is GRPO's) |",
        "|---|---|",
    ]
    for name, values in CHOICES.items():
        own = getattr(method, name)
        own = {True: "yes", False: "no"}.get(own, own)
        shown = [f"**{own}**"] + [value for value in values if value != own]
        lines.append(f"| `estimator.{name}` | {', '.join(shown)} |")
    return "\n".join(lines) + "\n"
