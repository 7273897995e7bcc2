"""The command line. Settings are checked before anything heavy is imported.

Exit codes: 0 done, 1 fault, 2 wrong input, 3 another process is at work on the run. A sentence goes to the
screen, a traceback to a run's ``log.txt``, or to the screen with ``RSM_DEBUG=1``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from math import inf

from trainers import hub_client
from trainers.adapter_start import checked_start, shape_settings
from trainers.cautions import cautions
from trainers.cli_studies import add_bench, add_lab
from trainers.coercion import parse_assignments
from trainers.config import RunConfig
from trainers.errors import InputError, StudioError
from trainers.failures import explain, last_traceback
from trainers.importing import uncollected
from trainers.interruption import Interruption
from trainers.launch import launched
from trainers.lora_export import add_export_lora
from trainers.methods import METHODS
from trainers.models import MODELS
from trainers.models.families import supported
from trainers.paths import path_of
from trainers.preflight import obstacles, prompt_problems
from trainers.presets import build_config, changed_settings
from trainers.prompts import load_prompts
from trainers.rewards import REWARDS
from trainers.run_folder import RunFolder, append_log, read_json
from trainers.run_lock import hold
from trainers.terminal import prepare_output, report, say
from trainers.tracking import add_export

DEBUG = "RSM_DEBUG"
MAIN_OPTIONS = ("prompts", "heldout_prompts", "seed", "budget_seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the process's exit code."""
    prepare_output()
    hub_client.install()
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
        if launched()[0] > 0:
            return _follow(options)
        return options.command(options) or 0
    except StudioError as error:
        report(f"Error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        report("Interrupted.")
        return 1
    except BrokenPipeError:
        return 1
    except Exception as error:  # a defect, or the machine's fault: of runs the log has the traceback
        if os.environ.get(DEBUG, "") not in ("", "0"):
            report(last_traceback())
        report(f"Error: {explain(error, 'The command')} {DEBUG}=1 shows where it happened.")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainers", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="fine-tune a model into a new run folder"))
    _add_spread(
        commands.add_parser("spread", help="see whether a reward tells the base model's pictures apart")
    )
    resume = commands.add_parser("resume", help="continue a run that was stopped or killed")
    resume.add_argument("run", type=path_of, help="the run folder")
    for name in ("budget_seconds", "max_updates"):
        help_text = f"a new value: {RunConfig.__dataclass_fields__[name].metadata['help']}"
        resume.add_argument(f"--{name.replace('_', '-')}", dest=name, help=help_text)
    resume.set_defaults(command=_resume)
    listing = commands.add_parser("list", help="list models, rewards and estimators")
    listing.add_argument("--json", action="store_true", help="machine-readable")
    listing.add_argument("--methods-page", action="store_true", help="the method table as docs/METHODS.md")
    listing.add_argument("--defaults-page", action="store_true", help="all defaults as docs/DEFAULTS.md")
    listing.set_defaults(command=_list)
    evaluate = commands.add_parser("evaluate", help="draw and score a run's adapter again")
    evaluate.add_argument("run", type=path_of, help="the run folder")
    evaluate.add_argument("--prompts", help="prompt set or file; the run's held-out set by default")
    evaluate.add_argument("--reward", help="reward or mixture; the run's by default")
    evaluate.add_argument("--samples", type=int, default=2, help="pictures per prompt")
    evaluate.set_defaults(command=_evaluate)
    add_export(commands.add_parser("export-metrics", help="copy a run's metrics to an experiment tracker"))
    add_export_lora(
        commands.add_parser("export-lora", help="write a LoRA of Stable Diffusion 1, 2 or XL in kohya's form")
    )
    add_lab(commands.add_parser("lab", help="study the estimators on a law that is known exactly"))
    add_bench(commands.add_parser("bench", help="measure speed, or compare the methods on pictures"))
    return parser


def _add_spread(parser: argparse.ArgumentParser) -> None:
    _add_settings(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.set_defaults(command=_spread)


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_settings(parser)
    parser.add_argument("--out", type=path_of, help="the run folder to create")
    parser.add_argument(
        "--from-adapter",
        dest="start_adapter",
        metavar="PLACE",
        help="begin from the LoRA of a run folder, an adapter folder or a file, with its rank",
    )
    parser.add_argument("--dry-run", action="store_true", help="check and print the settings, then stop")
    parser.epilog = "Settings: " + ", ".join(RunConfig.__dataclass_fields__)
    parser.set_defaults(command=_train)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=path_of, help="JSON file of settings, such as a run's config.json")
    for name in ("model", "reward", "estimator"):
        parser.add_argument(f"--{name}", help=RunConfig.__dataclass_fields__[name].metadata["help"])
    for name in MAIN_OPTIONS:
        help_text = RunConfig.__dataclass_fields__[name].metadata["help"]
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, help=help_text)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting")


def _follow(options) -> int:
    """Be one of the further processes of a launcher: they help to train, and leave all else to the first."""
    if options.command not in (_train, _resume) or getattr(options, "dry_run", False):
        return 0
    with uncollected():
        from trainers.follower import follow

    return follow()


def _train(options) -> int:
    config = _startable(_config(options))
    from trainers.opening import check_new, check_place, start

    if options.dry_run:
        if options.out is not None:
            check_new(options.out)
        _try_parts(config)
        for text in cautions(config).values():
            report(f"Note: {text}")
        say(config.to_json(), end="")
        return 0
    if options.out is None:
        raise InputError("'--out' is missing: name the run folder to create.")
    check_place(options.out)
    with hold(options.out):
        return _work(start(options.out, config), config)


def _try_parts(config: RunConfig) -> None:
    with uncollected():
        from trainers.models.configured import configured
        from trainers.models.trial_parts import part_trials

    if found := part_trials(configured(config)):
        raise InputError(*found)


def _spread(options) -> int:
    config = _startable(_config(options))
    with uncollected():
        from trainers.spread import check_spread

    record = check_spread(config).record()
    lines = (f"{name:8} {value:.4g}" for name, value in record.items())
    print(json.dumps(record) if options.json else "\n".join(lines))
    return 0


def _config(options) -> RunConfig:
    values: dict = {}
    found: list[str] = []
    if options.config:
        stored = read_json(options.config, as_written=True)
        if stored is None:
            raise InputError(f"'{options.config}' is not a readable JSON file of settings.")
        values |= stored
    given = {name: getattr(options, name) for name in ("model", "reward", "estimator", *MAIN_OPTIONS)}
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        if getattr(options, "start_adapter", None):
            values["start_adapter"] = options.start_adapter
        values |= parse_assignments(options.set)
        if values.get("start_adapter"):  # its rank is a default: what was given stays
            values = shape_settings(str(values["start_adapter"])) | values
    except InputError as error:
        found += error.problems
    names = {key: values.pop(key, getattr(RunConfig, key)) for key in ("model", "reward", "estimator")}
    config = None
    try:
        config = build_config(names["model"], names["estimator"], names["reward"], values)
    except InputError as error:
        found += error.problems
    for name in ("prompts", "heldout_prompts"):
        text = values.get(name) or (config and getattr(config, name))
        found += _prompt_problems(str(text or ""))
    if found:
        raise InputError(*dict.fromkeys(found))
    return config


def _startable(config: RunConfig) -> RunConfig:
    """Return the settings if the prompts can be used and nothing that they need is missing here."""
    missing = obstacles(config)
    told = prompt_problems(config, ask=not missing)
    found = [sentence for sentences in told.values() for sentence in sentences]
    try:
        if config.start_adapter:
            checked_start(config)
    except InputError as error:
        found += error.problems
    if found := found + missing:
        raise InputError(*dict.fromkeys(found))
    return config


def _prompt_problems(name: str) -> list[str]:
    try:
        if name:
            load_prompts(name)
    except InputError as error:
        return list(error.problems)
    return []


def _resume(options) -> int:
    from trainers.opening import existing, reopen

    given = {name: getattr(options, name) for name in ("budget_seconds", "max_updates")}
    with hold(existing(options.run).path):
        return _work(
            *reopen(options.run, {name: value for name, value in given.items() if value is not None})
        )


def _work(folder: RunFolder, config: RunConfig) -> int:
    """Run a session with a progress bar; the traceback of a failure goes to the log."""
    from trainers.progress import ProgressBar

    interruption = Interruption(folder)
    signal.signal(signal.SIGTERM, interruption.on_sigterm)
    signal.signal(signal.SIGINT, interruption.on_sigint)
    with ProgressBar() as bar:
        try:
            with uncollected():
                from trainers.ranks import join, leave
                from trainers.session import Session

            ranks = join()
            status = Session(folder, config, bar.show, interruption, ranks=ranks, on_note=bar.note).run()
            leave(ranks)
        except BaseException as error:
            append_log(folder.log, last_traceback())
            if isinstance(error, (StudioError, KeyboardInterrupt)):
                raise
            report(f"Error: {explain(error)} Details: {folder.log}")
            return 1
    say(f"{status.message}\nRun folder: {folder.path}")
    return 0


def _list(options) -> int:
    if options.methods_page:
        from trainers.method_docs import methods_page

        print(methods_page(), end="")
        return 0
    if options.defaults_page:
        from trainers.defaults_page import defaults_page

        print(defaults_page(), end="")
        return 0
    tables = {"models": MODELS, "rewards": REWARDS, "estimators": METHODS}
    if options.json:
        rows = {name: [_plain(spec) for spec in table] for name, table in tables.items()}
        print(json.dumps(rows, indent=2, default=dataclasses.asdict))
        return 0
    for name, table in tables.items():
        print(f"{name}:")
        for spec in table:
            print(f"  {spec.name:28} {spec.summary}")
        if table is MODELS:
            print(f"  {'FOLDER or OWNER/NAME':28} Any checkpoint of these classes: {supported()}.")
    return 0


def _plain(spec) -> dict:
    """Return a table row as JSON can hold it: infinite limits as text, defaults as a plain mapping."""
    record = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    return {key: _readable(value) for key, value in record.items()}


def _readable(value):
    if isinstance(value, Mapping):
        return {key: _readable(part) for key, part in value.items()}
    return str(value) if value in (inf, -inf) else value


def _evaluate(options) -> int:
    with uncollected():
        from trainers.reevaluate import reevaluate

    print(json.dumps(reevaluate(options.run, options.prompts, options.reward, options.samples), indent=2))
    return 0


def command_for(config: RunConfig, out: str, changed: Mapping[str, object] | None = None) -> str:
    """Return the shell command that repeats a run.

    Args:
        config: The run's settings.
        out: The folder that the command makes.
        changed: The settings to name beside model, reward and method; when None those that differ from
            what the combination begins with.
    """
    words = ["python", "-m", "trainers", "train"]
    for name in ("model", "reward", "estimator"):
        words += [f"--{name}", getattr(config, name)]
    changed = changed_settings(config) if changed is None else dict(changed)
    for name in MAIN_OPTIONS:
        if name in changed:
            words += [f"--{name.replace('_', '-')}", _text(changed.pop(name))]
    for name, value in changed.items():
        words += ["--set", f"{name}={_text(value)}"]
    return shlex.join([*words, "--out", out])


def _text(value) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)
