"""From loose values to settings: types, ranges and ``key=value`` words, every problem told together.

Torch-free, like ``trainers.config``, whose fields say what is valid.
"""

from __future__ import annotations

import math
import re
import types
import typing

from trainers.config import FIELDS, RunConfig
from trainers.errors import InputError
from trainers.registry import nearest

_TYPES = typing.get_type_hints(RunConfig)
_ROW = "estimator."


def coerce(name: str, value: object) -> object:
    """Turn text (or JSON) into the type of a field.

    Args:
        name: A field of ``RunConfig``.
        value: Text as typed by a person, or a JSON value.

    Returns:
        The value in the field's type.

    Raises:
        InputError: The name is unknown or the text is not of the field's type.
    """
    if name not in FIELDS:
        raise InputError(f"Unknown setting '{name}'. {nearest(name, FIELDS)}")
    kind = _TYPES[name]
    try:
        return _coerce(kind, value)
    except (TypeError, ValueError, OverflowError):
        expected = _KIND_WORDS.get(kind, "a number or empty")
        raise InputError(f"'{name}' must be {expected}, not {value!r}.") from None


def coerce_all(values: typing.Mapping[str, object]) -> tuple[list[str], dict[str, object]]:
    """Return a sentence for each value that ``coerce`` refuses, and the values it accepts."""
    found: list[str] = []
    clean: dict[str, object] = {}
    for name, value in values.items():
        try:
            clean[name] = coerce(name, value)
        except InputError as error:
            found += error.problems
    return found, clean


_KIND_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple[int, ...]: "whole numbers separated by commas",
    tuple[str, ...]: "name=value parts separated by commas",
}


def _coerce(kind, value):
    if kind is str:
        return str(value)
    if kind is int:
        if isinstance(value, bool) or float(value) != int(float(value)):
            raise ValueError
        return int(value) if isinstance(value, int) else int(float(value))
    if kind is float:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    if kind == tuple[int, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(_coerce(int, part) for part in parts if str(part).strip() != "")
    if kind == tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(text for part in parts if (text := str(part).strip()))
    if isinstance(kind, types.UnionType):
        return None if value in (None, "", "none", "None") else _coerce(float, value)
    raise TypeError(kind)


def problems(config: RunConfig) -> list[str]:
    """List every field that is out of range, in sentences; empty when all are fine."""
    found = []
    for name, info in FIELDS.items():
        found += _field_problems(name, getattr(config, name), info.metadata)
    found += [
        f"'branches' has {k} at step {i}; a group needs at least 2 branches, or 0 for none."
        for i, k in enumerate(config.branches)
        if k == 1
    ]
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.device):
        found.append(f"'device' must be auto, cpu, cuda or cuda:N, not '{config.device}'.")
    return found


def _field_problems(name, value, metadata) -> list[str]:
    low, high, choices = metadata["low"], metadata["high"], metadata["choices"]
    if choices and value not in choices:
        return [f"'{name}' must be one of {', '.join(choices)}, not '{value}'."]
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, str) or number is None or low is None:
            continue
        if not math.isfinite(number) or not low <= number <= high:
            return [f"'{name}' must be between {_digits(low)} and {_digits(high)}, not {_digits(number)}."]
    return []


def _digits(number: float) -> str:
    """Write whole numbers in full, so that a limit can be told from a value just beyond it."""
    return str(number) if isinstance(number, int) else f"{number:.12g}"


def from_mapping(values: typing.Mapping[str, object]) -> RunConfig:
    """Build a config from names and loose values, reporting every problem at once.

    Raises:
        InputError: With one sentence per unknown name, wrong type or out-of-range number.
    """
    found, clean = coerce_all(values)
    config = RunConfig(**clean)
    found += problems(config)
    if found:
        raise InputError(*found)
    return config


def parse_assignments(pairs: typing.Iterable[str]) -> dict[str, str]:
    """Split ``key=value`` words, as given to ``--set``; ``estimator.NAME=VALUE`` goes to the custom ``row``.

    Raises:
        InputError: A word has no ``=``.
    """
    found = [f"'{pair}' is not of the form key=value." for pair in pairs if "=" not in pair]
    if found:
        raise InputError(*found)
    found_values = dict(pair.split("=", 1) for pair in pairs)
    row = [f"{key.removeprefix(_ROW)}={value}" for key, value in found_values.items() if key.startswith(_ROW)]
    values = {key: value for key, value in found_values.items() if not key.startswith(_ROW)}
    return values | ({"row": ",".join(filter(None, [values.get("row"), *row]))} if row else {})
