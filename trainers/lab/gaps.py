"""What keeps each row from the exact tilted law, in words and figures; torch-free, for docs/METHODS.md.

The records are rows of ``trainers.lab.study.study_training``, one a line: every row at a usual and at a long
number of network evaluations, and a few rows with settings of their own. What a long training still leaves
is bias; what it takes away was training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainers.method import Method
from trainers.methods import METHODS

_HEAD = """## In the laboratory

Every row trained on the Gaussian mixture whose tilted law is known exactly (`python -m trainers lab`), β = 1.
*Left* is the sliced Wasserstein distance to the tilted law over that of the untouched model; the *floor* is
what a perfect model has through the same sampler and as many samples. What many more evaluations still leave
is the bias of the method, for the reasons in the last column; the rest was training. The records are
docs/laboratory.jsonl, written by `python -m trainers lab --estimator NAMES --out FILE`.
"""
_OTHER = """Settings of their own, beside the laboratory's:

| family | method | β | settings | seed | evaluations | left | floor |
|---|---|---|---|---|---|---|---|
"""
_FADES = {
    "clean_share": "fades its guidance by 1 − t, so modes are moved but hardly reweighted",
    "clean_share_squared": "fades its guidance by (1 − t)², so modes are moved but hardly reweighted",
    "next_clean_share_squared": "fades its guidance by ᾱ', so modes are moved but hardly reweighted",
}


def reasons(method: Method) -> list[str]:
    """Return what in a row's own definition biases it on the mixture, as parts of a sentence."""
    return _first_order(method) if method.order == "first" else _zeroth_order(method)


def _first_order(method: Method) -> list[str]:
    found = []
    if method.lookahead == "next":
        found.append("reads the gradient of E[r] under the trained policy, which overshoots log E[exp(r/β)]")
    else:
        found.append("reads ∇r without the network's Jacobian, which is constant here and reweights no mode")
    if method.strength in _FADES:
        found.append(_FADES[method.strength])
    if method.trust_region == "old":
        found.append("is held to the old policy, so it moves slowly")
    return found


def _zeroth_order(method: Method) -> list[str]:
    found = []
    if method.branching == "none":
        found.append("uses the denoising error in place of the likelihood")
    if method.branching == "per_step":
        found.append("learns from the branched steps only")
    if method.weight not in ("natural", "kl_natural", "forward_one", "one"):
        found.append("weighs steps unlike the path's KL, so the balance with β shifts")
    if method.normalised:
        found.append("normalises the advantage, so β does not say how far to tilt")
    if method.groups == "batch":
        found.append("compares rewards over the batch")
    return found or ["is unbiased at the noise level used here; what is left shrinks with more evaluations"]


def section(records: Sequence[Mapping]) -> str:
    """Return the page's part: a table per family, and the rows with settings of their own."""
    usual = [record for record in records if not record["settings"] and record["beta"] == 1.0]
    parts = [_HEAD]
    parts += [
        _table(family, [record for record in usual if record["family"] == family])
        for family in dict.fromkeys(record["family"] for record in usual)
    ]
    other = [record for record in records if record not in usual]
    return "\n".join(parts + ([_OTHER + "".join(map(_other, other))] if other else []))


def _table(family: str, records: Sequence[Mapping]) -> str:
    rows: dict[str, list[Mapping]] = {}
    for record in sorted(records, key=lambda record: record["evaluations"]):
        rows.setdefault(record["method"], []).append(record)
    lines = [
        f"### {family}, floor {records[0]['floor']:.2f}\n",
        "| method | evaluations | left | evaluations | left | reward | KL | why |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, mine in sorted(rows.items(), key=lambda item: item[1][-1]["share"]):
        short, long = mine[0], mine[-1]
        cells = [
            f"`{name}`",
            f"{short['evaluations']:,}",
            _amount(short["share"]),
            f"{long['evaluations']:,}",
            _amount(long["share"]),
            _amount(long["reward"]),
            _amount(long["kl"]),
            "; ".join(reasons(METHODS.get(name)) + ([f"broke: {long['error']}"] if long["error"] else [])),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _amount(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.0e}"


def _other(record: Mapping) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in record["settings"].items()) or "none"
    return (
        f"| {record['family']} | `{record['method']}` | {record['beta']:g} | {settings} "
        f"| {record['seed']} | {record['evaluations']:,} | {record['share']:.3f} | {record['floor']:.3f} |\n"
    )
