"""Prompt sets: built-in files below ``assets/prompts`` or a person's own file, one prompt a line.

Blank lines and lines that start with ``#`` are left out. A file that ends with ``.jsonl`` has one JSON
object a line instead, with the text as "prompt" and whatever else a reward reads about it, like GenEval's.
Torch-free.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainers.assets import asset_root
from trainers.config import MAX_PROMPT_CHARACTERS, RunConfig
from trainers.errors import InputError
from trainers.paths import absolute, path_of
from trainers.registry import nearest

MAX_PROMPTS = 100_000
RECORDS = ".jsonl"


def prompt_folder() -> Path:
    """Return the folder of the built-in sets."""
    return asset_root() / "prompts"


def builtin_sets() -> tuple[str, ...]:
    """Return the names of the built-in prompt sets."""
    return tuple(sorted(_builtin_files()))


def _builtin_files() -> dict[str, Path]:
    return {path.stem: path for path in prompt_folder().glob("*") if path.suffix in (".txt", RECORDS)}


def load_prompts(name_or_path: str) -> list[str]:
    """Return the prompts of a built-in set or of a file.

    Raises:
        InputError: The name is unknown, the file unreadable, empty, or a prompt is too long; every
            problem is reported.
    """
    path = prompt_file(name_or_path)
    text = _text(path)
    if path.suffix == RECORDS:
        return check_prompts([record["prompt"] for record in _records(text, path)], str(path))
    return check_prompts(text.splitlines(), str(path))


def prompt_file(name_or_path: str) -> Path:
    """Return the file of a built-in set, or the one that a path names.

    Raises:
        InputError: There is neither.
    """
    path = _place(name_or_path)
    if not path.is_file():
        raise InputError(
            f"'{name_or_path}' is neither a built-in prompt set nor a file. "
            f"{nearest(name_or_path, builtin_sets())}"
        )
    return path


def absolute_prompts(name_or_path: str) -> str:
    """Return a built-in set's name as it is, and a file's path from the root.

    Raises:
        InputError: The system knows no such path.
    """
    is_file = name_or_path not in _builtin_files() and path_of(name_or_path).is_file()
    return absolute(name_or_path) if is_file else name_or_path


def prompt_records(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return what the prompt files of a run say about their prompts beside the text; none say text files.

    Raises:
        InputError: A file cannot be read.
    """
    paths = [_place(name) for name in (config.prompts, config.heldout_prompts)]
    files = [path for path in paths if path.suffix == RECORDS]
    return {record["prompt"]: record for path in files for record in _records(_text(path), path)}


def _place(name_or_path: str) -> Path:
    return _builtin_files().get(name_or_path) or path_of(name_or_path)


def _records(text: str, path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            record = record | {"prompt": " ".join(record["prompt"].split())}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise InputError(
                f'Line {number} of {path} is not a JSON object with a text "prompt", such as '
                '{"prompt": "a photo of two dogs"}.'
            ) from None
        records.append(record)
    return records


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"The prompt file {path} is not UTF-8 text; save it as plain text.") from None
    except OSError as error:
        raise InputError(f"The prompt file {path} cannot be read: {error.strerror}.") from None


def check_prompts(lines: list[str], origin: str) -> list[str]:
    """Return the prompts among some lines, or raise ``InputError`` with every problem."""
    prompts = [(i, line.strip()) for i, line in enumerate(lines, 1)]
    prompts = [(i, line) for i, line in prompts if line and not line.startswith("#")]
    found = [
        f"Line {i} of {origin} has {len(line)} characters; a prompt may have {MAX_PROMPT_CHARACTERS}."
        for i, line in prompts
        if len(line) > MAX_PROMPT_CHARACTERS
    ]
    if not prompts:
        found.append(f"{origin} holds no prompts; write one prompt a line.")
    if len(prompts) > MAX_PROMPTS:
        found.append(f"{origin} holds {len(prompts)} prompts; at most {MAX_PROMPTS} are read.")
    if found:
        raise InputError(*found[:10])
    return [line for _, line in prompts]
