"""The commands that measure: ``lab`` on an exact law, ``bench`` on pictures and for speed."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from trainers.coercion import coerce_all, parse_assignments, problems
from trainers.config import RunConfig
from trainers.custom import CUSTOM
from trainers.errors import InputError
from trainers.methods import METHODS
from trainers.models import EMBEDDED, MODELS, ModelSpec
from trainers.paths import path_of
from trainers.presets import build_config
from trainers.run_folder import append_line
from trainers.terminal import report

PICTURE_FILES = (".png", ".svg", ".pdf")


def add_lab(parser: argparse.ArgumentParser) -> None:
    """Declare the words of ``lab``."""
    parser.add_argument("--family", choices=("flow", "diffusion"), help="only one model family")
    parser.add_argument("--evaluations", type=int, help="network evaluations of each training")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random draw")
    parser.add_argument("--plot", type=path_of, metavar="FILE", help="draw the study into a picture file")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    rows = parser.add_argument_group("training only some rows, with other settings")
    rows.add_argument("--estimator", help="methods separated by commas; leaves the other studies out")
    rows.add_argument("--beta", type=float, default=1.0, help="KL strength of the law that is aimed at")
    rows.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting")
    rows.add_argument(
        "--ablations", action="store_true", help="train rows without each suspected cause of their bias"
    )
    rows.add_argument("--out", type=path_of, metavar="FILE", help="append each trained row as a line of JSON")
    parser.set_defaults(command=_lab)


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Declare the words of ``bench``."""
    parser.set_defaults(command=_bench)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--model", help="base model; for methods by default both embedded ones")
    parser.add_argument("--estimator", help="method (speed), or methods separated by commas")
    parser.add_argument("--reward", help="reward or mixture; for methods tiny_clip, which every row can use")
    what = parser.add_argument_group("speed (the default)")
    parser.add_argument(
        "what", nargs="?", choices=("speed", "methods"), default="speed", help="what to measure"
    )
    what.add_argument("--updates", type=int, default=5, help="rollouts to time")
    what.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting")
    what.add_argument(
        "--random-weights",
        metavar="NAME",
        default="",
        help="an architecture at full size, nothing to download; on a CPU the tiny one of its family",
    )
    methods = parser.add_argument_group("methods")
    methods.add_argument("--seeds", type=int, default=3, help="seeds of every row")
    methods.add_argument("--seconds", type=float, default=60.0, help="training seconds of every row")
    methods.add_argument("--evaluations", type=int, default=60_000, help="network evaluations of every row")
    methods.add_argument("--pictures", type=int, default=256, help="held-out pictures")
    methods.add_argument("--threads", type=int, default=0, help="CPU threads; 0 uses one per core")
    methods.add_argument("--out", type=path_of, default=Path("runs/comparison.jsonl"), help="one race a line")
    methods.add_argument("--plot", type=path_of, metavar="FILE", help="draw the races into a picture file")


def _lab(options) -> int:
    families = (options.family,) if options.family else ("flow", "diffusion")
    names = [METHODS.get(name.strip()).name for name in (options.estimator or "").split(",") if name]
    settings, found = _lab_settings(options, names)
    found += _lab_problems(options, families, names)
    if found:
        raise InputError(*found)
    from trainers.lab.study import EVALUATIONS, run_study, study_ablations, study_training

    common = {"workers": os.cpu_count() or 1, "say": report}
    evaluations = options.evaluations or EVALUATIONS
    if options.ablations:
        found = [
            row
            for family in families
            for row in study_ablations(family, evaluations, options.seed, names, **common)
        ]
        return _tell_rows(found, options)
    if names:
        fitting = {family: [n for n in names if family in METHODS.get(n).families] for family in families}
        rows = [
            row
            for family, mine in fitting.items()
            if mine
            for row in study_training(
                family, evaluations, options.seed, options.beta, mine, settings, **common
            )
        ]
        return _tell_rows(rows, options)
    study = run_study(families, evaluations, options.seed, **common)
    if options.plot:
        from trainers.lab.plots import save_figure

        save_figure(study, options.plot)
    from trainers.lab.report import as_text

    print(json.dumps(study, indent=2) if options.json else as_text(study))
    return 0


def _tell_rows(rows: list[dict], options) -> int:
    from trainers.lab.report import training_table

    for row in rows if options.out else []:
        append_line(options.out, row)
    print(json.dumps(rows, indent=2) if options.json else training_table(rows))
    return 0


def _lab_settings(options, names) -> tuple[dict, list[str]]:
    """Return the checked settings of ``--set``, and what is wrong with them."""
    found, clean = coerce_all(parse_assignments(options.set))
    if options.ablations and (options.set or options.beta != 1.0):
        found.append("'--ablations' uses the laboratory's own settings: leave '--set' and '--beta' out.")
    elif not (names or options.ablations) and (options.set or options.out or options.beta != 1.0):
        found.append("'--set', '--beta' and '--out' train single rows: name them with '--estimator'.")
    if (names or options.ablations) and options.plot:
        found.append("'--plot' draws the whole study: leave '--estimator' and '--ablations' out.")
    return clean, found + problems(RunConfig(**clean))


def _lab_problems(options, families, names) -> list[str]:
    found = []
    if options.evaluations is not None and options.evaluations < 1:
        found.append(f"'--evaluations' must be at least 1, not {options.evaluations}.")
    if options.plot and options.plot.suffix.lower() not in PICTURE_FILES:
        found.append(f"'--plot' must end in .png, .svg or .pdf, not '{options.plot.name}'.")
    if not 0.01 <= options.beta <= 100.0:
        found.append(f"'--beta' must be between 0.01 and 100, not {options.beta:g}.")
    found += [
        f"'{name}' has no place in the laboratory of {' or '.join(families)}."
        for name in names
        if name == CUSTOM or not set(families) & set(METHODS.get(name).families)
    ]
    return found


def _bench(options) -> int:
    if options.what == "methods":
        return _bench_methods(options)
    spec = _bench_spec(options)
    estimator = options.estimator or f"rsm_zeroth_order_{spec.family}"
    reward = options.reward or ("brightness" if options.random_weights else RunConfig.reward)
    values = parse_assignments(options.set)
    model = spec.name
    if options.random_weights:
        # Timed with the settings of the embedded model of their family, on fewer prompts.
        model = next(m.name for m in MODELS if m.family == spec.family)
        values = {"prompts_per_update": 4} | values
    config = build_config(model, estimator, reward, values)
    from trainers.bench import bench, table

    result = bench(config, max(1, options.updates), options.random_weights)
    print(json.dumps(result, indent=2) if options.json else table(result))
    return 0


def _bench_spec(options) -> ModelSpec:
    if not options.random_weights:
        return MODELS.get(options.model or RunConfig.model)
    if options.model:
        raise InputError("'--random-weights' takes the place of '--model': give one of them.")
    from trainers.models.random_weights import random_spec

    return random_spec(options.random_weights)


def _bench_methods(options) -> int:
    models = [MODELS.get(options.model).name] if options.model else EMBEDDED
    estimators = [METHODS.get(name.strip()).name for name in (options.estimator or "").split(",") if name]
    reward = options.reward or "tiny_clip"
    _check_race(options, models, estimators, reward)
    from trainers.comparison import races, run_races
    from trainers.comparison_report import save_figure, tables

    wanted = races(
        models,
        reward,
        estimators,
        options.seeds,
        options.seconds,
        options.evaluations,
        options.pictures,
    )
    records = run_races(wanted, options.out, options.threads, report)
    if options.plot:
        save_figure(records, options.plot)
    print(json.dumps(records, indent=2) if options.json else tables(records))
    return 0


def _check_race(options, models, estimators, reward: str) -> None:
    """Refuse what no race could use, all problems together."""
    found = [
        f"'--{name}' must be at least {least}, not {getattr(options, name)}."
        for name, least in (("seeds", 1), ("seconds", 1), ("evaluations", 1), ("pictures", 4))
        if not getattr(options, name) >= least
    ]
    if options.plot and options.plot.suffix.lower() not in PICTURE_FILES:
        found.append(f"'--plot' must end in .png, .svg or .pdf, not '{options.plot.name}'.")
    for estimator in estimators:
        misfits = [_misfit(model, estimator, reward) for model in models]
        if all(misfits):  # a row that fits one of the models races there
            found += [problem for told in misfits for problem in told]
    if found:
        raise InputError(*dict.fromkeys(found))


def _misfit(model: str, estimator: str, reward: str) -> list[str]:
    try:
        build_config(model, estimator, reward, {})
    except InputError as error:
        return list(error.problems)
    return []
