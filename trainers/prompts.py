"""Prompt sets: built-in text files below ``assets/prompts`` or a person's own file, one prompt a line.

Blank lines and lines that start with ``#`` are left out. Torch-free.
"""

from __future__ import annotations

from pathlib import Path

from trainers.assets import asset_root
from trainers.config import MAX_PROMPT_CHARACTERS
from trainers.errors import InputError
from trainers.registry import nearest

MAX_PROMPTS = 100_000


def prompt_folder() -> Path:
    """Return the folder of the built-in sets."""
    return asset_root() / "prompts"


def builtin_sets() -> tuple[str, ...]:
    """Return the names of the built-in prompt sets."""
    return tuple(sorted(path.stem for path in prompt_folder().glob("*.txt")))


def load_prompts(name_or_path: str) -> list[str]:
    """Return the prompts of a built-in set or of a text file.

    Raises:
        InputError: The name is unknown, the file unreadable, empty, or a prompt is too long; every
            problem is reported.
    """
    path = prompt_folder() / f"{name_or_path}.txt"
    if name_or_path not in builtin_sets():
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise InputError(
                f"'{name_or_path}' is neither a built-in prompt set nor a file. "
                f"{nearest(name_or_path, builtin_sets())}"
            )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"The prompt file {path} is not UTF-8 text; save it as plain text.") from None
    except OSError as error:
        raise InputError(f"The prompt file {path} cannot be read: {error.strerror}.") from None
    return check_prompts(text.splitlines(), str(path))


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
