r"""Prompts out of a file: text with one prompt a line, CSV, TSV, JSON, JSON lines, or Parquet.

The ending says which, in any case; a text file that holds one of the other forms is read as that form, so
that neither a header nor a column of categories nor JSON's punctuation ever becomes part of a prompt. Lines
end at ``\n``, ``\r\n`` and ``\r`` and nowhere else: other separators of Unicode stay within a prompt, as
a space. What a file says about a prompt beside its text is kept for rewards. Torch-free.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from trainers.bounded_json import HALF_SURROGATE
from trainers.errors import InputError

KEYS = ("prompt", "prompts", "caption", "captions", "text")  # the first one that is there holds the prompt
CSV, TSV, JSON, LINES, PARQUET = ".csv", ".tsv", ".json", ".jsonl", ".parquet"
ENDINGS = (".txt", CSV, TSV, ".tab", JSON, LINES, ".ndjson", PARQUET)
FORMS = "text with one prompt a line, CSV, TSV, JSON, JSON lines or Parquet"
_OTHER_FORMS = re.compile(
    r"\.(ya?ml|toml|xml|html?|xlsx?|od[st]|docx?|rtf|pdf|zip|gz|tar|7z|zst|arrow|feather|pkl|pt|np[yz]|db|sqlite"
    r"|safetensors|png|jpe?g|webp)"
)
_MARKS = (  # longest first: UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE_END = re.compile("\r\n|\n|\r")
_INNER_BREAKS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]+")
_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class PromptRow:
    """One prompt of a file.

    Attributes:
        prompt: Its text, on one line.
        number: Of the line, row or entry that holds it, from 1.
        record: What the file says about it, the text as "prompt" included; empty in plain text.
        unit: What the number counts: ``Line``, ``Row`` or ``Entry``.
    """

    prompt: str
    number: int
    record: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "Line"


def read_file(path: Path) -> list[PromptRow]:
    """Return the prompts of a file.

    Raises:
        InputError: It cannot be read, is of another form, or names no prompts.
    """
    if path.suffix.lower() == PARQUET:
        return _parquet_rows(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"The prompt file {path} cannot be read: {error.strerror}.") from None
    return read_bytes(data, str(path))


def read_bytes(data: bytes, origin: str) -> list[PromptRow]:
    """Return the prompts of a file's content; errors as in ``read_file``.

    Args:
        data: All of it.
        origin: The file's name, whose ending says what form it has.
    """
    ending = Path(origin).suffix.lower()
    if ending == PARQUET or _OTHER_FORMS.fullmatch(ending):
        raise InputError(f"{origin} cannot be read here; prompts are read from {FORMS}.")
    return read_text(_decoded(data, origin), origin, ending)


def read_text(text: str, origin: str, ending: str = "") -> list[PromptRow]:
    """Return the prompts of a text.

    Args:
        text: What a file or a field holds.
        origin: What it is called in sentences.
        ending: Of the file's name, in lower case.

    Raises:
        InputError: The text is not of the form that its ending says, or names no prompts.
    """
    if "\0" in text:
        raise InputError(
            f"{origin} holds bytes that are no text, so it is no prompt file; save it as UTF-8 text."
        )
    rows = _reader(text, ending)(text, origin)
    if broken := [row for row in rows if HALF_SURROGATE.search(row.prompt)][:3]:
        told = "{} {} of {} holds half a character (a lone surrogate); write it anew."
        raise InputError(*(told.format(row.unit, row.number, origin) for row in broken))
    return rows


def as_text(rows: Sequence[PromptRow]) -> str:
    """Return prompts as a text that ``read_text`` reads alike: plain lines, or JSON lines where need be."""
    plain = "".join(f"{row.prompt}\n" for row in rows)
    if not any(row.record for row in rows) and [r.prompt for r in _try(plain)] == [r.prompt for r in rows]:
        return plain
    return "".join(json.dumps({**row.record, "prompt": row.prompt}, default=str) + "\n" for row in rows)


def _try(text: str) -> list[PromptRow]:
    try:
        return read_text(text, "")
    except InputError:
        return []


def _decoded(data: bytes, origin: str) -> str:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"The prompt file {origin} is not UTF-8 text: line {line} has bytes of another encoding. Save it "
            "as UTF-8."
        ) from None


def _reader(text: str, ending: str) -> Callable[[str, str], list[PromptRow]]:
    """Return what reads a text: by the ending, else by what the text is beyond doubt."""
    if ending in (CSV, TSV, ".tab"):
        return partial(_table_rows, delimiter="," if ending == CSV else "\t")
    if ending in (JSON, LINES, ".ndjson") or _holds_json(text):
        return _json_rows
    for sign in ("\t", ","):
        cells = _first_line(text).split(sign)
        words = sign == "\t" or all(_WORD.fullmatch(cell) for cell in cells)  # a prompt may have commas
        if len(cells) > 1 and words and _column(cells) is not None:
            return partial(_table_rows, delimiter=sign)
    return _plain_rows


def _holds_json(text: str) -> bool:
    """Whether a text is a JSON list of prompts or JSON objects with prompts, as no plain prompts are."""
    if text.lstrip()[:1] not in ("[", "{"):
        return False
    first = _parsed_line(_first_line(text))
    return (isinstance(first, dict) and _text_of(first) is not None) or _all_prompts(
        _entries(_parsed_line(text)) or ()
    )


def _first_line(text: str) -> str:
    return _LINE_END.split(text.lstrip("\r\n"), maxsplit=1)[0]


# -- plain text --------------------------------------------------------------------------------------


def _plain_rows(text: str, origin: str) -> list[PromptRow]:
    lines = ((number, _INNER_BREAKS.sub(" ", line).strip()) for number, line in _lines(text))
    return [PromptRow(line, number) for number, line in lines if line and not line.startswith("#")]


def _lines(text: str) -> Iterable[tuple[int, str]]:
    return enumerate(_LINE_END.split(text), 1)


# -- tables ------------------------------------------------------------------------------------------


def _table_rows(text: str, origin: str, delimiter: str) -> list[PromptRow]:
    """Return the rows of a table whose first line names its columns."""
    first = _first_line(text)
    # Spreadsheets write semicolons where the comma is part of numbers.
    headers = {sign: next(csv.reader([first], delimiter=sign), []) for sign in (delimiter, ";", "\t", ",")}
    sign = next((sign for sign, header in headers.items() if _column(header) is not None), None)
    if sign is None:
        names = ", ".join(f"'{name.strip()[:40]}'" for name in headers[delimiter][:8]) or "nothing"
        raise InputError(
            f"The first line of {origin} names {names}, and no column of prompts. Call that column 'prompt' "
            f"(or {', '.join(KEYS[1:-1])} or {KEYS[-1]}), or save one prompt a line as a .txt file."
        )
    return _rows_below(_cells(text, origin, sign), origin, sign)


def _cells(text: str, origin: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return (line, cells) of each row that holds something."""
    try:
        return _parsed(text, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error as error:
        problem = error
    try:
        if delimiter == "\t":  # there quotes are often quotes and nothing else
            return _parsed(text, delimiter, csv.QUOTE_NONE)
    except csv.Error as error:
        problem = error
    raise InputError(
        f"{origin} cannot be read as a table: {problem}. A cell with commas or quotes is written in quotes, "
        'with the quotes in it doubled: "a sign that says ""open"", in red".'
    )


def _parsed(text: str, delimiter: str, quoting: int) -> list[tuple[int, list[str]]]:
    lines = (f"{line}\n" for _, line in _lines(text))
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    rows, line = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(f"line {line}, {error}") from None
    return rows


def _column(header: Sequence[str]) -> int | None:
    """Return the place of the column that holds the prompts."""
    names = [name.strip().lower() for name in header]
    return next((names.index(key) for key in KEYS if key in names), None)


def _rows_below(found: Sequence[tuple[int, list[str]]], origin: str, delimiter: str) -> list[PromptRow]:
    (_, header), *below = found
    column, rows, problems = _column(header) or 0, [], []
    for line, cells in below:
        if len(header) == 1:  # then a comma only belongs to the prompt
            cells = [delimiter.join(cells)]
        if len(cells) > len(header):
            problems.append(
                f"Line {line} of {origin} has {len(cells)} cells, but its first line names {len(header)}. "
                "Put quotes around a prompt with commas."
            )
        elif len(cells) > column and (prompt := _on_one_line(cells[column])):
            record = dict(zip(header, cells, strict=False)) if len(header) > 1 else {}
            rows.append(PromptRow(prompt, line, record | {"prompt": prompt} if record else {}))
    if problems:
        raise InputError(*problems[:3])
    return rows


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


# -- JSON --------------------------------------------------------------------------------------------


def _json_rows(text: str, origin: str) -> list[PromptRow]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return _json_lines(text, origin)
    entries = _entries(whole)
    if entries is None:
        raise InputError(
            f"{origin} holds no list of prompts. Write one such as "
            '["a red bus", "two dogs"], or JSON lines such as {"prompt": "a photo of two dogs"}.'
        )
    rows = [_row_of(entry, number, "Entry", origin) for number, entry in enumerate(entries, 1)]
    return [row for row in rows if row.prompt]


def _json_lines(text: str, origin: str) -> list[PromptRow]:
    rows = []
    for number, line in _lines(text):
        if line.strip():
            rows.append(_row_of(_parsed_line(line), number, "Line", origin))
    return [row for row in rows if row.prompt]


def _parsed_line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _row_of(entry: Any, number: int, unit: str, origin: str) -> PromptRow:
    text = _text_of(entry)
    if text is None:
        raise InputError(
            f'{unit} {number} of {origin} is not a JSON object with a text "prompt", such as '
            '{"prompt": "a photo of two dogs"}.'
        )
    prompt = _on_one_line(text)
    return PromptRow(prompt, number, {**entry, "prompt": prompt} if isinstance(entry, dict) else {}, unit)


def _text_of(entry: Any) -> str | None:
    """Return the prompt of a text or of an object, None where it has none."""
    value = _value_of(entry) if isinstance(entry, dict) else entry
    return value if isinstance(value, str) else None


def _value_of(entry: Mapping[Any, Any]) -> Any:
    names = {str(name).strip().lower(): name for name in reversed(entry)}
    return next((entry[names[key]] for key in KEYS if key in names), None)


def _entries(whole: Any) -> list[Any] | None:
    """Return the entries of a list, or of an object that is one or holds one list of them; else None."""
    if isinstance(whole, list):
        return whole
    if not isinstance(whole, dict):
        return None
    value = _value_of(whole)
    if isinstance(value, str):
        return [whole]
    if isinstance(value, list):
        return value
    parts = list(whole.values())
    if _all_prompts([part if isinstance(part, dict) else None for part in parts]):
        return parts
    lists = [part for part in parts if isinstance(part, list) and _all_prompts(part)]
    lists = [part for part in lists if isinstance(part[0], dict)] or lists  # texts may be tags
    return lists[0] if len(lists) == 1 else None


def _all_prompts(entries: Sequence[Any]) -> bool:
    return bool(entries) and all(_text_of(entry) is not None for entry in entries)


# -- Parquet -----------------------------------------------------------------------------------------


def _parquet_rows(path: Path) -> list[PromptRow]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(
            f"{path} is a Parquet file, and pyarrow, which reads those, is not installed. Install it, or "
            "save the prompts as CSV or JSON lines."
        ) from None
    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise InputError(f"The prompt file {path} cannot be read as Parquet: {error}.") from None
    if (column := _column(table.column_names)) is None:
        raise InputError(
            f"{path} has the columns {', '.join(table.column_names[:8])}, and none of prompts. Call that "
            "column 'prompt'."
        )
    name, rows = table.column_names[column], []
    for number, record in enumerate(table.to_pylist(), 1):
        text = record[name]
        if isinstance(text, str) and (prompt := _on_one_line(text)):
            rows.append(PromptRow(prompt, number, record | {"prompt": prompt}, "Row"))
    return rows
