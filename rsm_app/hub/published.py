"""Records of a published run, read as what they are: a stranger's. Nothing of them is used before it was
checked.

Settings must be known ones in their ranges, the report must have the numbers that the pages show, metrics and
pairs are copied field by field. A record that fails is refused with one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from rsm_app.hub.card import PICTURE
from trainers.adapter_file import WEIGHTS, Header, base_misfits, read_header
from trainers.bounded_json import MAX_KEYS, iter_lines, read_json
from trainers.coercion import from_mapping
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.image_files import UnreadableImage, load_image
from trainers.methods import METHODS
from trainers.models import MODELS
from trainers.rewards import REWARDS
from trainers.terminal import printable

MAX_DEPTH = 6
MAX_PARTS = 5000  # values of a record, however deep
MAX_TEXT = 1000
MAX_METRIC_LINES = 100_000
MAX_PAIR_LINES = 10_000
MAX_PROMPT_LINES = 300_000
MAX_ALL_PIXELS = 2**29  # of all pictures together: what 64 pairs of 2048 × 2048 have
LARGEST = 2**63 - 1
_COUNTS = ("updates", "images_sampled", "network_evaluations", "prompts", "prompts_trained_on")
MAX_NOTES = 32
_AMOUNTS = ("wall_seconds", "train_seconds", "drift")
# Where str.splitlines ends a line.
_LINE_ENDS = (
    b"\n",
    b"\r",
    b"\v",
    b"\f",
    b"\x1c",
    b"\x1d",
    b"\x1e",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"\xe2\x80\xa9",
)
_METRIC = re.compile(r"[a-z_]{1,40}")


def read_record(path: Path) -> dict:
    """Return a JSON object of finite numbers, short texts, lists and objects.

    Raises:
        InputError: It is none, or holds something else.
    """
    value = read_json(path)
    if value is None or not _plain(value) or _parts(value) > MAX_PARTS:
        raise InputError(f"{path.name} of this repository is damaged or was not written by RSM Studio.")
    return _shown(value)


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


def checked_metrics(path: Path) -> Iterator[dict]:
    """Yield the metrics as lines of plain numbers; what is no number is left out.

    Raises:
        InputError: There are more lines than any run writes.
    """
    for number, line in enumerate(iter_lines(path)):
        if number == MAX_METRIC_LINES:
            raise InputError(f"{path.name} of this repository has more than {MAX_METRIC_LINES:,} lines.")
        numbers = {name: value for name, value in line.items() if _METRIC.fullmatch(name) and _finite(value)}
        if isinstance(numbers.get("step"), int) and len(numbers) <= MAX_KEYS:
            yield numbers


def checked_pairs(path: Path) -> list[dict]:
    """Return the lines of ``images/pairs.jsonl`` that are whole; their pictures are checked apart."""
    found = []
    for line in islice(iter_lines(path), MAX_PAIR_LINES):
        pictures = [line.get(side) for side in ("before", "after")]
        named = all(isinstance(name, str) and PICTURE.fullmatch(name) for name in pictures)
        prompt, seed = line.get("prompt"), line.get("seed")
        rewards = _numbers(line, ("reward_before", "reward_after"))
        if named and rewards and isinstance(prompt, str) and len(prompt) <= MAX_TEXT and _whole(seed):
            found.append(line | {"prompt": " ".join(printable(prompt).split())})
    return found


def checked_picture(path: Path) -> int:
    """Check that a file is a whole PNG of a sane size; return its pixels.

    Raises:
        InputError: It is not.
    """
    try:
        image = load_image(path, formats=("PNG",))
    except UnreadableImage:
        raise InputError(f"{path.name} of this repository is not a whole PNG picture.") from None
    return image.width * image.height


def check_prompt_file(path: Path) -> None:
    """Check that a file of prompts can be read in a bounded amount of memory; what it says is read later.

    Raises:
        InputError: It has more lines, or its records more parts, than any set of prompts.
    """
    content = path.read_bytes()
    lines = sum(content.count(end) for end in _LINE_ENDS)
    parts = content.count(b"[") + content.count(b"{")  # a .txt that holds JSON is read as JSON, too
    if lines > MAX_PROMPT_LINES or parts > 20 * MAX_PROMPT_LINES:
        raise InputError(f"{path.name} of this repository has more than {MAX_PROMPT_LINES:,} lines.")


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
    notes = report.get("notes", [])
    listed = isinstance(notes, list) and len(notes) <= MAX_NOTES and all(isinstance(n, str) for n in notes)
    return named and counts and listed and all(_finite(amount) and amount >= 0 for amount in amounts)


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
        return all(_plain(part, depth + 1) for part in value)
    return (
        value is None
        or isinstance(value, bool)
        or _finite(value)
        or (isinstance(value, str) and len(value) <= MAX_TEXT)
    )


def _parts(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + sum(map(_parts, value)) if isinstance(value, list) else 1


def _shown(value: object) -> Any:
    """Return a record whose texts may be printed: without what a terminal would obey."""
    if isinstance(value, dict):
        return {printable(name): _shown(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_shown(part) for part in value]
    return printable(value) if isinstance(value, str) else value
