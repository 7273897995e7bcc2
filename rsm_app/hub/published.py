"""Records of a published run, read as what they are: a stranger's. Nothing of them is used before it was
checked.

Settings must be known ones in their ranges, the report must have the numbers that the pages show, metrics and
pairs are copied field by field. A record that fails is refused with one sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from rsm_app.hub.card import PICTURE
from trainers.adapter_file import WEIGHTS, Header, base_misfits, read_header
from trainers.coercion import from_mapping
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.methods import METHODS
from trainers.models import MODELS
from trainers.rewards import REWARDS
from trainers.run_folder import read_lines

MAX_DEPTH = 6
MAX_PIXELS = 4096 * 4096
LARGEST = 2**63 - 1
_COUNTS = ("updates", "images_sampled", "network_evaluations")
_AMOUNTS = ("wall_seconds", "train_seconds", "drift")
_METRIC = re.compile(r"[a-z_]{1,40}")


def read_record(path: Path) -> dict:
    """Return a JSON object of finite numbers, short texts, lists and objects.

    Raises:
        InputError: It is none, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not _plain(value):
        raise InputError(f"{path.name} of this repository is damaged or was not written by RSM Studio.")
    return value


def checked_config(path: Path) -> RunConfig:
    """Return the settings of a published run.

    Raises:
        InputError: They are damaged, of a newer version, or name a base model, method or reward that is not
            known here.
    """
    record = read_record(path)
    try:
        config = from_mapping(record)
    except InputError as error:
        raise InputError(
            f"The settings of this LoRA are not of this version of the app: {error.problems[0]}"
        ) from None
    if config.model not in MODELS:
        raise InputError(
            f"This LoRA is for the base model '{config.model[:100]}', which is not known here. Known: "
            f"{', '.join(MODELS.names())}."
        )
    if found := _unknown_names(config):
        raise InputError(*found)
    return config


def _unknown_names(config: RunConfig) -> list[str]:
    """Say which method or reward is not of the tables; a function in a file is a stranger's code."""
    named = ",".join(filter(None, (config.reward, config.others)))
    rewards = [part.partition(":")[0].strip() for part in named.split(",")]
    found = [f"Its reward '{name[:100]}' is not known here." for name in rewards if name not in REWARDS]
    if config.estimator not in METHODS:
        found.append(f"Its method '{config.estimator[:100]}' is not known here.")
    return found


def checked_report(path: Path, config: RunConfig) -> dict:
    """Return a report that has what the pages and the card show.

    Raises:
        InputError: Numbers are missing, or it is the report of another run.
    """
    report = read_record(path)
    same = all(report.get(name) == getattr(config, name) for name in ("model", "reward", "estimator"))
    sides = [report.get(side) for side in ("before", "after")]
    paired = report.get("paired")
    whole = isinstance(paired, dict) and _numbers(paired, ("n", "mean_gain", "stderr", "z", "win_rate"))
    if not same or not whole or not all(isinstance(side, dict) and _sound_side(side) for side in sides):
        raise InputError("report.json of this repository is not the report of this LoRA's run.")
    if not _sound_rest(report):
        raise InputError("report.json of this repository has something else where numbers belong.")
    return report


def _has_shape(header: Header, config: RunConfig) -> bool:
    """Whether a LoRA has its settings' rank, and their alpha or, with the scale in its weights, its
    rank's.
    """
    return header.rank == config.lora_rank and header.alpha in (config.lora_alpha, float(config.lora_rank))


def checked_adapter(path: Path, config: RunConfig) -> None:
    """Check a LoRA by its header alone, before anything of it is loaded.

    Raises:
        InputError: It is no safetensors file, its shapes do not fit the base model, or rank and alpha are not
            those of its settings.
    """
    header = read_header(path)
    found = base_misfits(header, config.model)
    if not found and not _has_shape(header, config):
        found = [f"{WEIGHTS} has another rank or alpha than its config.json says."]
    if found:
        raise InputError(*found)


def checked_metrics(path: Path) -> list[dict]:
    """Return the metrics as lines of plain numbers; what is no number is left out."""
    lines = (
        {k: v for k, v in line.items() if _METRIC.fullmatch(k) and _finite(v)} for line in read_lines(path)
    )
    return [line for line in lines if isinstance(line.get("step"), int)]


def checked_pairs(path: Path) -> list[dict]:
    """Return the lines of ``images/pairs.jsonl`` that are whole; their pictures are checked apart."""
    found = []
    for line in read_lines(path):
        pictures = [line.get(side) for side in ("before", "after")]
        named = all(isinstance(name, str) and PICTURE.fullmatch(name) for name in pictures)
        prompt, seed = line.get("prompt"), line.get("seed")
        rewards = _numbers(line, ("reward_before", "reward_after"))
        if named and rewards and isinstance(prompt, str) and len(prompt) <= 1000 and _whole(seed):
            found.append(line)
    return found


def checked_picture(path: Path) -> None:
    """Check that a file is a whole PNG of a sane size.

    Raises:
        InputError: It is not.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{path.name} of this repository is not a whole PNG picture.") from None


def _sound_side(side: Mapping) -> bool:
    others = side.get("others")
    entries = [side.get("reward"), *(others.values() if isinstance(others, dict) else [None])]
    means = all(isinstance(entry, dict) and _numbers(entry, ("mean", "stderr")) for entry in entries)
    return means and _finite(side.get("diversity"))


def _sound_rest(report: Mapping) -> bool:
    """Whether counts, times and the call's arguments are what the pages and the card take them for."""
    call = report.get("sampling", {})
    named = isinstance(call, dict) and all(
        name.isidentifier() and not isinstance(value, dict | list) for name, value in call.items()
    )
    counts = all(_whole(report.get(name, 0)) for name in _COUNTS)
    amounts = [report.get(name, 0) for name in _AMOUNTS]
    return named and counts and all(_finite(amount) and amount >= 0 for amount in amounts)


def _numbers(record: Mapping, names: Iterable[str]) -> bool:
    return all(_finite(record.get(name)) for name in names)


def _finite(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -LARGEST <= value <= LARGEST  # no NaN, no infinity, no integer that no float holds


def _whole(value: object) -> bool:
    return isinstance(value, int) and _finite(value) and value >= 0


def _plain(value: object, depth: int = 0) -> bool:
    if depth > MAX_DEPTH:
        return False
    if isinstance(value, dict):
        return all(len(key) <= 200 and _plain(part, depth + 1) for key, part in value.items())
    if isinstance(value, list):
        return len(value) <= 10_000 and all(_plain(part, depth + 1) for part in value)
    return (
        value is None
        or isinstance(value, bool)
        or _finite(value)
        or (isinstance(value, str) and len(value) <= 1000)
    )
