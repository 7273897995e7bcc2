"""What a run's numbers depend on and its settings only name: prompts, own rewards, the base model's folder.

A run keeps its own copy of its prompts. Of everything else it keeps digests, taken when it begins, and a
session that meets something else refuses by name: rewards before and after a change are not of one measure,
and a LoRA fits the base model it was trained on. Torch-free.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainers.config import FIELDS, RunConfig
from trainers.errors import FaultError, InputError
from trainers.models import MODELS
from trainers.models.access import cached_folder
from trainers.models.folders import INDEX, config_of, parts_of, place_of
from trainers.prompts import prompt_file
from trainers.rewards.own import own_name
from trainers.rewards.own_source import source_files
from trainers.run_folder import RunFolder, atomic_write, read_json, write_json

PROMPTS = ("prompts", "heldout_prompts")
_BLOCK, _BLOCKS = 64 * 1024, 16
_MOST_BYTES, _MOST_FILES = 16 * 2**20, 200  # of a run's record; of a package that is recorded file by file
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# They say where, how long and with how much memory a run works, and what else is reported; not what it
# learns.
_FREE = frozenset(
    (
        *(name for name, field in FIELDS.items() if field.metadata["group"] == "machine"),
        *(
            "budget_seconds",
            "max_updates",
            "micro_batch",
            "eval_batch",
            "probe_every",
            "probe_prompts",
            "others",
        ),
        *("server_url", "judge_url", "judge_key_variable"),
        *("endpoint_timeout", "endpoint_retries", "endpoint_parallel"),
    )
)
_NEW = "Put it back as it was, or begin a new run."


def keep_inputs(folder: RunFolder, config: RunConfig) -> None:
    """Copy a run's prompts into its folder, and take digests of everything else; once, when the run begins.

    Raises:
        InputError: A prompt file cannot be read.
        FaultError: The run folder cannot be written.
    """
    if folder.inputs_record.exists():
        return
    record: dict[str, Any] = {"settings": dataclasses.asdict(config)}
    for name in PROMPTS:
        source = prompt_file(getattr(config, name))
        copy = folder.inputs / f"{name}{source.suffix.lower()}"
        content = _content(source)
        if source != copy:
            atomic_write(copy, content)
        record[name] = {"file": copy.name, "sha256": hashlib.sha256(content).hexdigest()}
    record["rewards"] = {str(path): _source_digest(path) for path in _reward_sources(config)}
    record["model"] = _model_digests(config.model, loaded=False)
    write_json(folder.inputs_record, record)


def kept(folder: RunFolder, config: RunConfig) -> RunConfig:
    """Return the settings with the run's own copies in the place of its prompt files, where it has them."""
    record = _record(folder)
    copies = {name: _copy(folder, record, name) for name in PROMPTS}
    held = {name: str(path.absolute()) for name, path in copies.items() if path.is_file()}
    return dataclasses.replace(config, **held)


def input_problems(folder: RunFolder, config: RunConfig) -> list[str]:
    """Say what has changed since the run began, by name; empty for a run that kept no record."""
    record = _record(folder)
    found = _setting_problems(_part(record, "settings"), config)
    for name in PROMPTS:
        kept_as = _part(record, name)
        path = _copy(folder, record, name)
        if kept_as and _digest(path) != kept_as.get("sha256"):
            found.append(
                f"The run's own copy of its prompts, {path}, was edited or removed since the run began. "
                f"{_NEW}"
            )
    for path, digest in _part(record, "rewards").items():
        if _source_digest(Path(path)) != digest:
            found.append(
                f"The reward file {path} has changed since the run began, so rewards before and after would "
                f"not be of one measure. {_NEW}"
            )
    model, now = _part(record, "model"), _model_digests(config.model, loaded=False)
    if model and now and (names := _changed(model, now)):
        found.append(_other_model(config, names))
    return found


def confirm_model(folder: RunFolder, config: RunConfig) -> None:
    """Hold the base model that was loaded against the run's record, or complete the record the first time.

    What the Hub has of a model now is known only once it has been loaded.

    Raises:
        FaultError: It is another one than the run began with, or the run folder cannot be read or written.
    """
    if not folder.inputs_record.exists():
        return
    record = _record(folder)
    now = _model_digests(config.model, loaded=True)
    if not _part(record, "model"):
        write_json(folder.inputs_record, record | {"model": now})
    elif names := _changed(_part(record, "model"), now):
        raise FaultError(_other_model(config, names))


def _record(folder: RunFolder) -> dict[str, Any]:
    """Return what a run kept of its inputs; empty for one that kept nothing.

    Raises:
        FaultError: There is a record that cannot be read: without it nothing guards the run's numbers.
    """
    path = folder.inputs_record
    record = read_json(path, _MOST_BYTES, as_written=True)
    if record is None and path.exists():
        raise FaultError(
            f"{path} cannot be read, and it says which prompts, rewards and base model the run began with. "
            "Put it back, or begin a new run."
        )
    return record or {}


def _other_model(config: RunConfig, names: list[str]) -> str:
    return (
        f"The base model {config.model} has changed since the run began ({', '.join(names)}), and a LoRA "
        f"fits the model it was trained on. {_NEW}"
    )


def _setting_problems(began: Mapping[str, Any], config: RunConfig) -> list[str]:
    now = dataclasses.asdict(config)
    found = []
    for name, value in began.items():
        was = tuple(value) if isinstance(value, list) else value
        if name in now and name not in _FREE and now[name] != was:
            found.append(
                f"'{name}' was {_text(was)} when the run began and is {_text(now[name])} in its config.json "
                f"now. {_NEW}"
            )
    return found


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else repr(value)


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, Mapping) else {}


def _copy(folder: RunFolder, record: Mapping[str, Any], name: str) -> Path:
    return folder.inputs / Path(str(_part(record, name).get("file", name))).name


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The prompt file {path} cannot be read: {error.strerror}.") from None


def _reward_sources(config: RunConfig) -> Iterator[Path]:
    """Yield a run's own reward files and the neighbors that these import; of a large package its folder."""
    for part in f"{config.reward},{config.others}".split(","):
        if match := own_name(part):
            file = Path(match["file"])
            within: dict[Path, list[Path]] = {}
            for source in source_files(file):
                within.setdefault(file.parent / source.relative_to(file.parent).parts[0], []).append(source)
            for place, files in within.items():
                yield from files if len(files) <= _MOST_FILES else [place]


def _source_digest(path: Path) -> str:
    """Return a digest of a Python file, or of all those of a package."""
    if not path.is_dir():
        return _digest(path)
    files = sorted(path.rglob("*.py"))
    text = "".join(f"{_digest(file)} {file.relative_to(path).as_posix()}\n" for file in files)
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _model_digests(name: str, loaded: bool) -> dict[str, str]:
    """Return digests of the files that a base model is loaded from.

    Empty for the embedded models, which are of the program.

    Args:
        name: The model.
        loaded: Whether it was loaded just now. Before that nothing is said of a repository of the Hub, of
            which this machine may have any part, of any revision.
    """
    spec = MODELS.get(name)
    if spec.embedded:
        return {}
    folder = place_of(spec.location) or (cached_folder(spec.location) if loaded else None)
    if folder is None:
        return {}
    return {path.relative_to(folder).as_posix(): _digest(path, sampled=True) for path in _files_read(folder)}


def _files_read(folder: Path) -> Iterator[Path]:
    """Yield the files of a pipeline: its index, and what is in the folders of its parts."""
    yield folder / INDEX
    for part, _ in parts_of(config_of(folder / INDEX)):
        for path in sorted((folder / part).rglob("*")):
            hidden = any(name.startswith(".") for name in path.relative_to(folder).parts)
            if not hidden and path.suffix in (*_WEIGHTS, ".json", ".txt", ".model") and path.is_file():
                yield path


def _digest(path: Path, sampled: bool = False) -> str:
    """Return a digest of a file; empty where it cannot be read.

    Args:
        path: The file.
        sampled: Whether blocks spread evenly over a large file stand for all of it, which is gigabytes for a
            model; its size always counts.
    """
    digest = hashlib.sha256()
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            if not sampled or size <= _BLOCK * _BLOCKS:
                return hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(str(size).encode())
            for number in range(_BLOCKS):
                file.seek((size - _BLOCK) * number // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    except OSError:
        return ""
    return digest.hexdigest()


def _changed(began: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the first names whose digests differ."""
    names = [name for name in {**began, **now} if began.get(name) != now.get(name)]
    return [*names[:3], *(["…"] if len(names) > 3 else [])]
