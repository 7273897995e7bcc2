"""Prompt sets: built-in files below ``assets/prompts``, or a person's own file, text or table.

How a file is read is in ``trainers.prompt_files``. Torch-free.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainers.assets import asset_root
from trainers.config import MAX_PROMPT_CHARACTERS, RunConfig
from trainers.errors import InputError
from trainers.paths import absolute, path_of
from trainers.prompt_files import PromptRow, read_file, read_text
from trainers.registry import nearest

MAX_PROMPTS = 100_000


def prompt_folder() -> Path:
    """Return the folder of the built-in sets."""
    return asset_root() / "prompts"


def builtin_sets() -> tuple[str, ...]:
    """Return the names of the built-in prompt sets."""
    return tuple(sorted(_builtin_files()))


def _builtin_files() -> dict[str, Path]:
    return {path.stem: path for path in prompt_folder().glob("*") if path.suffix in (".txt", ".jsonl")}


def load_prompts(name_or_path: str) -> list[str]:
    """Return the prompts of a built-in set or of a file; errors as in ``load_rows``."""
    return [row.prompt for row in load_rows(name_or_path)]


def load_rows(name_or_path: str) -> list[PromptRow]:
    """Return the prompts of a built-in set or of a file, with their places in it.

    Raises:
        InputError: The name is unknown, the file unreadable, empty, or a prompt is too long; every
            problem is reported.
    """
    path = prompt_file(name_or_path)
    return checked(read_file(path), str(path))


def prompt_file(name_or_path: str) -> Path:
    """Return the file of a built-in set, or the one that a path names.

    Raises:
        InputError: There is neither.
    """
    path = _path_of(name_or_path)
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
    names = dict.fromkeys((config.prompts, config.heldout_prompts))
    paths = [path for name in names if (path := _path_of(name)).is_file()]
    rows = [row for path in paths for row in read_file(path)]
    return {row.prompt: dict(row.record) for row in rows if row.record}


def _path_of(name_or_path: str) -> Path:
    return _builtin_files().get(name_or_path) or path_of(name_or_path)


def read_prompts(text: str, origin: str) -> list[PromptRow]:
    """Return the prompts of a text that a person pasted or a program sent, checked as a file's are.

    Args:
        text: Of any of the forms of ``prompt_files``.
        origin: What it is called in sentences.

    Raises:
        InputError: With every problem.
    """
    return checked(read_text(text, origin), origin)


def checked(rows: list[PromptRow], origin: str) -> list[PromptRow]:
    """Return rows that can be prompts, or raise ``InputError`` with every problem."""
    told = "{} {} of {} has {} characters; a prompt may have {}."
    found = [
        told.format(row.unit, row.number, origin, len(row.prompt), MAX_PROMPT_CHARACTERS)
        for row in rows
        if len(row.prompt) > MAX_PROMPT_CHARACTERS
    ]
    if not rows:
        found.append(f"{origin} holds no prompts; write one prompt a line.")
    if len(rows) > MAX_PROMPTS:
        found.append(f"{origin} holds {len(rows)} prompts; at most {MAX_PROMPTS} are read.")
    if found:
        raise InputError(*found[:10])
    return rows
