"""Runs a person's own reward: imports its file, finds out how it wants to be called, reads what it returns.

Served are the forms that people bring: ``f(images)``, ``f(images, prompts)``, the three-argument form of DDPO
and Flow-GRPO ``f(images, prompts, metadata)``, functions that return such a function (``f()``, ``f(device)``)
and objects with ``__call__``; returning B numbers as a tensor, an array or a list, of shape (B,) or (B, 1),
alone or first in a tuple, or under "avg" or "scores" in a mapping.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.prompts import prompt_records
from trainers.rewards.contract import Reward
from trainers.rewards.own import own_problems, own_spec
from trainers.rewards.own_source import argument_problems

KEYS = ("avg", "scores", "rewards", "outputs")  # of a mapping; the first that is there counts


class OwnFunction(Reward):
    """r = function(images, prompts, metadata), as many of them as it takes.

    The function gets copies, so that whatever it does to its images or records no other reward sees.

    Args:
        function: Gets (B, 3, H, W) in [0, 1], B prompts and B records; returns B numbers.
        differentiable: Whether its gradient is kept.
        records: What the run's prompt files say about their prompts, by prompt.
    """

    def __init__(
        self,
        function: Callable,
        differentiable: bool,
        records: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        self.function = function
        self.differentiable = differentiable
        self.records = records or {}
        self._takes = _arguments_taken(function)

    def __call__(self, images, prompts, metadata=None):
        records = {**self.records, **(metadata or {})}
        own = [copy.deepcopy(dict(records.get(prompt, {"prompt": prompt}))) for prompt in prompts]
        given = (images.clone(), list(prompts), own)[: self._takes]
        asked = self.differentiable and torch.is_grad_enabled()
        with torch.set_grad_enabled(asked), _same_default_dtype():
            values = read_values(self.function(*given), len(images))
        if asked and images.requires_grad and not values.requires_grad:
            # In a mixture the others' gradient alone would silently be that of another reward.
            raise ValueError(
                "it is declared differentiable, but its values do not depend on the pictures in a way that "
                "gradients can follow; return a tensor that is not detached, or leave the declaration out."
            )
        # A copy: the function may keep what it returns and overwrite it at its next call.
        values = values if values.requires_grad else values.detach().clone()
        return values.to(images.device, torch.float32)


def read_values(values: Any, count: int) -> Tensor:
    """Return what a reward function returned as a tensor (count,).

    Raises:
        ValueError: It is not one number for each image; the sentence says what it is.
    """
    if isinstance(values, tuple) and len(values) == 2 and _several(values[0]):
        values = values[0]  # DDPO and Flow-GRPO return (scores, anything)
    if isinstance(values, Mapping):
        key = next((key for key in KEYS if key in values), None)
        if key is None:
            names = ", ".join(map(str, list(values)[:5]))
            raise ValueError(f"it returned a mapping with {names or 'nothing'}; none of {', '.join(KEYS)}.")
        values = values[key]
    if values is None:
        raise ValueError("it returned nothing (None); it must end with returning one number an image.")
    tensor = _tensor(values)
    if tensor.shape != (count,) and tensor.shape[:1] == (count,) and tensor.numel() == count:
        tensor = tensor.reshape(count)  # (B, 1), as language models with one output give
    if tensor.shape != (count,):
        raise ValueError(
            f"it returned values of shape {tuple(tensor.shape)} for {count} pictures; one number for each is "
            "needed."
        )
    return tensor


def _several(value: Any) -> bool:
    """Whether something is a collection of values and not one number."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence | Mapping) and not isinstance(value, str | bytes)


def _tensor(values: Any) -> Tensor:
    try:
        if isinstance(values, Tensor):
            return values if not values.is_complex() else _not_numbers(values)
        if isinstance(values, Sequence) and any(isinstance(value, Tensor) for value in values):
            return torch.stack([torch.as_tensor(value).float().reshape(()) for value in values])
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":
            return _not_numbers(values)
        return torch.from_numpy(np.array(array, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return _not_numbers(values)


def _not_numbers(values: Any) -> Tensor:
    raise ValueError(
        f"it returned something of type {type(values).__name__} that holds no plain numbers; return one "
        "number an image, as a tensor, an array or a list."
    )


@contextlib.contextmanager
def _same_default_dtype() -> Iterator[None]:
    """Put PyTorch's default dtype back if the function changed it, for all tensors that are made later."""
    kept = torch.get_default_dtype()
    try:
        yield
    finally:
        if torch.get_default_dtype() != kept:
            torch.set_default_dtype(kept)


def load_function(file: Path, name: str, device: str = "cpu", config: RunConfig | None = None) -> OwnFunction:
    """Import a file and return the reward of one of its functions.

    Args:
        file: The file.
        name: What it binds at its top level.
        device: Handed to a function that makes the reward and asks for it.
        config: The run's settings, whose prompt files hold the metadata; none when None.

    Raises:
        InputError: It is refused here, or the file or function is not there, or importing it fails, or it
            cannot be called as a reward.
    """
    text = f"{file}:{name}"
    if found := own_problems(text):
        raise InputError(*found)
    module = _imported(file)
    try:
        function = _made(getattr(module, name), device)
    except Exception as error:
        raise InputError(f"'{name}' in {file} cannot be used: {_words(error)}") from error
    if not callable(function):
        kind = type(function).__name__
        raise InputError(f"'{name}' in {file} is of type {kind}, which cannot be called as a reward.")
    if found := argument_problems(f"'{name}' in {file}", *_needed(function)):
        raise InputError(*found)
    records = prompt_records(config) if config else {}
    return OwnFunction(function, own_spec(text).differentiable, records)


def _imported(file: Path) -> ModuleType:
    """Run a file as a module that may import its neighbours, as a script in that folder could.

    The module is registered while it runs, because dataclasses look their module up. What other reward files
    imported and this one would take for its own neighbors is put out of the way first.
    """
    folder = file.resolve().parent
    name = f"own_reward_{file.stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    _folders.setdefault(folder, frozenset(sys.modules))
    _unload_neighbors(folder)
    sys.modules[name] = module
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"Importing {file} failed with {_words(error)}") from error
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # for imports within functions; everything installed goes first
        _states.update({file: _state(file) for _, file in _neighbors(folder)})
    return module


_folders: dict[Path, frozenset[str]] = {}
"""Folders of reward files → modules that the process had before, such as those of a script in that folder."""
_states: dict[Path, tuple[int, int]] = {}
"""Files of neighbors, as they were when they were imported."""


def _neighbors(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and file of the modules that reward files imported from their folder, also within functions.

    Parts of a package around the folder have longer names.
    """
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "")
        if name not in _folders[folder] and file.is_relative_to(folder):
            parts = file.relative_to(folder).with_suffix("").parts
            if name == ".".join(parts[:-1] if parts[-1:] == ("__init__",) else parts):
                yield name, file


def _unload_neighbors(folder: Path) -> None:
    """Unload earlier versions of a folder's neighbors, and those of other folders that would hide one."""
    own = list(_neighbors(folder))
    edited = any(_states.get(file, _state(file)) != _state(file) for _, file in own)
    # When one was edited, others may hold what it defined. How old one is that a function imported, nobody
    # knows.
    stale = {name for name, file in own if edited or file not in _states}
    for other in _folders.keys() - {folder}:
        for name, _ in _neighbors(other):
            top = folder / name.partition(".")[0]
            if top.with_suffix(".py").is_file() or top.is_dir():
                stale.add(name)
    for name in stale:
        del sys.modules[name]


def _state(file: Path) -> tuple[int, int]:
    try:
        info = file.stat()
    except OSError:
        return 0, 0
    return info.st_mtime_ns, info.st_size


def _made(value: Any, device: str) -> Any:
    """Return the reward that a class or a function without images makes; anything else as it is."""
    if inspect.isclass(value):
        return value()
    names = [p.name for p in _positional(value)]
    needed, keywords = _needed(value)
    if inspect.isfunction(value) and not keywords and not _variable(value):
        if not names:
            return value()
        if names[0] == "device" and needed <= 1:
            return value(device)
    return value


def _arguments_taken(function: Callable) -> int:
    """Return how many of images, prompts and metadata a function is called with."""
    needed, _ = _needed(function)
    positional = _positional(function)
    if needed == 3 or (len(positional) > 2 and "meta" in positional[2].name):
        return 3
    return 1 if len(positional) == 1 and not _variable(function) else 2


def _positional(function: Callable) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter for parameter in _parameters(function) if parameter.kind in kinds]


def _variable(function: Callable) -> bool:
    """Whether a function takes any number of arguments, as far as can be known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some compiled functions do not say
        return True
    return any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)


def _needed(function: Callable) -> tuple[int, list[str]]:
    """Return how many arguments by position a function needs, and which by keyword."""
    needed = [parameter for parameter in _positional(function) if parameter.default is parameter.empty]
    keywords = [
        parameter.name
        for parameter in _parameters(function)
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    ]
    return len(needed), keywords


def _parameters(function: Callable) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
