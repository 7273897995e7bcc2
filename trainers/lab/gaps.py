"""What keeps each row from the exact tilted law, in words and figures; torch-free, for docs/METHODS.md.

The records are rows of ``trainers.lab.study.study_training``, one a line: every row at a usual and at a long
number of network evaluations, and a few rows with settings of their own. What a long training still leaves
or adds is the method's bias; what it takes away was training; ``trainers.lab.ablations`` tries the causes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_HEAD = """## In the laboratory

Every row trained on the Gaussian mixture whose tilted law is known exactly (`python -m trainers lab`), β = 1,
one seed. *Left* is the sliced Wasserstein distance to the tilted law over that of the untouched model; the
*floor* is what a perfect model has through the same sampler and as many samples. What many more evaluations
take away was training; what they still leave, or add where a row overshoots, is the method's. The last column
takes one property of the row away at a time and trains it again, at the larger number of evaluations: a
property explains the bias as far as less is left without it (empty where that was not tried yet). The records
are docs/laboratory.jsonl, written by `python -m trainers lab --estimator NAMES --out FILE` and `python -m
trainers lab --ablations --out FILE`.
"""
_OTHER = """Settings of their own, beside the laboratory's:

| family | method | β | settings | seed | evaluations | left | floor |
|---|---|---|---|---|---|---|---|
"""


def section(records: Sequence[Mapping]) -> str:
    """Return the page's part: a table per family, and the rows with settings of their own."""
    ablated = [record for record in records if record.get("without")]
    records = [record for record in records if not record.get("without")]
    usual = [record for record in records if not record["settings"] and record["beta"] == 1.0]
    parts = [_HEAD]
    parts += [
        _table(
            family,
            [record for record in usual if record["family"] == family],
            [record for record in ablated if record["family"] == family],
        )
        for family in dict.fromkeys(record["family"] for record in usual)
    ]
    other = [record for record in records if record not in usual]
    return "\n".join(parts + ([_OTHER + "".join(map(_other, other))] if other else []))


def _table(family: str, records: Sequence[Mapping], ablated: Sequence[Mapping]) -> str:
    rows: dict[str, list[Mapping]] = {}
    for record in sorted(records, key=lambda record: record["evaluations"]):
        rows.setdefault(record["method"], []).append(record)
    lines = [
        f"### {family}, floor {records[0]['floor']:.2f}\n",
        "| method | evaluations | left | evaluations | left | reward | KL | left when it no longer … |",
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
            "; ".join(_measured(name, ablated) + ([f"broke: {long['error']}"] if long["error"] else [])),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _measured(name: str, ablated: Sequence[Mapping]) -> list[str]:
    """Return each suspected cause with what is left of the distance without it, least first."""
    mine = sorted(
        (record for record in ablated if record["method"] == name), key=lambda record: record["share"]
    )
    return [f"{record['without']}: {_amount(record['share'])}" for record in mine]


def _amount(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.0e}"


def _other(record: Mapping) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in record["settings"].items()) or "none"
    return (
        f"| {record['family']} | `{record['method']}` | {record['beta']:g} | {settings} "
        f"| {record['seed']} | {record['evaluations']:,} | {record['share']:.3f} | {record['floor']:.3f} |\n"
    )
