"""A reward of one's own: ``file.py:function``, for people who run the engine on their own machine.
Torch-free.

The function gets images (B, 3, H, W) in [0, 1] and the B prompts, and returns B numbers; ``own_function``
lists the other forms that are served. It is a black box unless the file says
``function.differentiable = True``. Before a run the file is parsed and never executed. Refused where others
can start runs: on Spaces, in the app, and wherever ``RSM_ALLOW_OWN_CODE`` is 0.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from trainers.registry import Registry
from trainers.rewards.contract import RewardSpec
from trainers.rewards.own_source import NOT_PYTHON, parse, says_differentiable, source_problems

PERMISSION = "RSM_ALLOW_OWN_CODE"
_FUNCTION = "a function of your own"
_NAME = re.compile(r"(?P<file>[^,]+\.py):(?P<function>[A-Za-z_]\w*)")


def own_name(text: str) -> re.Match | None:
    """Return the match at the beginning of a part of a mixture that names a function in a file, else None."""
    return _NAME.match(text.strip())


def refusal(what: str) -> str | None:
    """Return the sentence that says that something of a visitor's own is refused here; None where it is
    allowed.

    Args:
        what: What was asked for, as in "a function of your own".
    """
    if os.environ.get("SYSTEM") == "spaces":
        return f"A Space takes rewards of the list and not {what}; use the list, or your own machine."
    # Where it is not set there is no app, which always sets it; any other word than a clear yes is a no.
    if os.environ.get(PERMISSION, "1").strip().lower() not in ("1", "true", "yes", "on"):
        return (
            f"This app takes rewards of the list and not {what}. Start the run in a shell, or let whoever "
            f"runs the app set {PERMISSION}=1."
        )
    return None


@dataclass(frozen=True, kw_only=True)
class OwnSpec(RewardSpec):
    """The row that a function in a file would have in the table.

    Attributes:
        file: The file.
        function: Its name there.
    """

    file: Path
    function: str

    def load(self) -> Any:
        """Return a factory ``load(device, config) -> Reward``; imports the file when it is called."""
        importer = super().load()
        return lambda device="cpu", config=None: importer(self.file, self.function, device, config)


def own_problems(name: str) -> list[str]:
    """Say what keeps a function in a file from being a reward, without running the file."""
    refused = refusal(_FUNCTION)
    if refused:
        return [refused]
    match = _NAME.fullmatch(name)
    path, function = _place(match["file"]), match["function"]
    if path is None:
        return [f"The file of the reward {name!r} cannot be found; write its path in full."]
    if "," in str(path):
        return [comma_in(path)]
    try:
        return source_problems(path, function, parse(path))
    except FileNotFoundError:
        return [f"The file {path} of the reward '{name}' does not exist."]
    except OSError as error:
        return [f"The file {path} of the reward '{name}' cannot be read: {error.strerror}."]
    except NOT_PYTHON as error:
        return [f"The file {path} of the reward '{name}' is not valid Python: {error}."]


def comma_in(path: object) -> str:
    """Return the sentence about a path with a comma."""
    return (
        f"The path {path} has a comma, which separates rewards: rename the folder, or make a link to the "
        "file whose path has none, and name that."
    )


def resolved(mixture: str) -> str:
    """Return a mixture with the files of its own functions named from the root, to mean the same
    everywhere.

    What is refused here or cannot be found stays as it is; ``own_problems`` tells.
    """
    if refusal(_FUNCTION):
        return mixture
    parts = []
    for part in mixture.split(","):
        match = own_name(part)
        path = _place(match["file"]) if match else None
        parts.append(f"{path}{part.strip()[len(match['file']) :]}" if path else part)
    return ",".join(parts)


def _place(file: str) -> Path | None:
    """Return a file's path from the root; None for a text that cannot be one here."""
    try:
        return Path(file).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links, no such user, a NUL
        return None


def without_places(mixture: str) -> str:
    """Return a mixture with the files of its own functions named without their folders."""
    parts = []
    for part in mixture.split(","):
        match = own_name(part)
        file = Path(match["file"]).name if match else ""
        parts.append(f"{file}{part.strip()[len(match['file']) :]}" if match else part)
    return ",".join(parts)


def own_spec(name: str) -> OwnSpec:
    """Return the row of a function in a file; its problems are told by ``own_problems``.

    Where such a function is refused no file is looked at.
    """
    match, refused = _NAME.fullmatch(name), refusal(_FUNCTION)
    path = Path(match["file"]) if refused else _place(match["file"]) or Path(match["file"])
    function = match["function"]
    return OwnSpec(
        name=name,
        title=f"{function} of {path.name}",
        summary="A function of your own.",
        target="trainers.rewards.own_function:load_function",
        differentiable=not refused and _says_differentiable(path, function),
        low=-inf,
        high=inf,
        unit="as the function has it",
        cost="as the function has it",
        source=str(path),
        configured=True,
        file=path,
        function=function,
    )


def _says_differentiable(path: Path, function: str) -> bool:
    try:
        return says_differentiable(parse(path), function)
    except (OSError, *NOT_PYTHON):
        return False


class RewardTable(Registry[RewardSpec]):
    """The table of rewards; ``get`` also knows functions in files, which no listing shows."""

    def get(self, name: str) -> RewardSpec:
        """Return the row called ``name``, or that of a function in a file; errors as in ``Registry.get``."""
        if name not in self and _NAME.fullmatch(name):
            return own_spec(name)
        return super().get(name)
