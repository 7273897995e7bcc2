"""JSON of files that a stranger may have written: bytes, lines, depth and numbers are bounded before parsing.

A run folder may have been brought from the Hub or shared by a visitor. What is read of it costs memory in
proportion to a limit, not to the file: ``[[[[…`` takes twenty times its size once parsed. Half surrogate
pairs, which no database and no network takes, become the replacement character. Imports no torch.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

MAX_RECORD_BYTES = 2**20
MAX_LINE_BYTES = 2**20
MAX_FILE_BYTES = 128 * 2**20
MAX_LINES = 1_000_000
MAX_DEPTH = 32
MAX_CONTAINERS = 100_000  # objects and lists in one text
MAX_KEYS = 64  # of a line of numbers, and at most so many brackets
_LOOKED_BACK = 256  # bytes before what is new, by which a replaced file is known
MOST_SAMPLED = 8192  # lines of a longer file that are kept at least
_DIGITS = 18  # of a whole number; more may not fit into 64 bits
_NESTING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[\[{]|[\]}]', re.DOTALL)
HALF_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(data: bytes, as_written: bool = False) -> Any:
    """Return what UTF-8 text of JSON holds.

    Whole numbers beyond 64 bits are read as floats.

    Args:
        data: The text; whoever reads it has bounded its size.
        as_written: Whether half surrogate pairs stay, which stand for bytes in names of files.

    Raises:
        ValueError: It is no JSON, no UTF-8, nested deeper than ``MAX_DEPTH``, or of too many parts.
    """
    if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise ValueError(f"more than {MAX_CONTAINERS} objects and lists")
    if _too_deep(data):
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    value = json.loads(data.removeprefix(codecs.BOM_UTF8).decode(), parse_int=_whole)
    halves = not as_written and (b"\\ud" in data or b"\\uD" in data)
    return _without_surrogates(value) if halves else value


def read_json(path: Path, most_bytes: int = MAX_RECORD_BYTES, as_written: bool = False) -> dict | None:
    """Return a JSON object, or None when the file is missing, damaged, too large or too deep.

    Args:
        path: The file.
        most_bytes: How large it may be.
        as_written: As in ``parse_json``.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
        value = parse_json(data, as_written) if len(data) <= most_bytes else None
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def iter_lines(path: Path, most_bytes: int | None = None) -> Iterator[dict]:
    """Yield the objects of a JSON-lines file one by one, leaving out torn, damaged and oversized lines.

    Args:
        path: The file; a missing one has no lines.
        most_bytes: How much of it is read; all when None.
    """
    with contextlib.suppress(OSError), open(path, "rb") as file:
        for line in _raw_lines(file, most_bytes):
            record = _object(line)
            if record is not None:
                yield record


def read_lines(path: Path, most_bytes: int = MAX_FILE_BYTES, most_lines: int = MAX_LINES) -> list[dict]:
    """Return the objects of a JSON-lines file as ``iter_lines`` yields them, up to limits."""
    return list(islice(iter_lines(path, most_bytes), most_lines))


def trim_lines(path: Path, target: Path, keep: Callable[[dict], bool]) -> None:
    """Copy the lines of a JSON-lines file that are to stay, as they are, whatever its size.

    Raises:
        OSError: The target cannot be written.
    """
    with open(target, "wb") as copy, contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        for line in _raw_lines(file, None):
            record = _object(line)
            if record is not None and keep(record):
                copy.write(line.rstrip(b"\r\n") + b"\n")


class SampledLines:
    """The numbers of a growing JSON-lines file: of every line, or of evenly spaced ones and the latest.

    What was read before is not read again unless the file was replaced. Beyond twice ``most`` lines every
    second one is forgotten, again and again, so a line that stays keeps its place in a curve. May be used by
    several threads.

    Args:
        path: The file; it need not be there.
        most: At least so many lines are kept of a longer file.
        latest: How many lines at its end are always kept.
    """

    def __init__(self, path: Path, most: int = MOST_SAMPLED, latest: int = 64):
        """Name the file; nothing is read yet."""
        self._path, self._most, self._room = Path(path), most, latest
        self._lock = threading.Lock()
        self._lines: list[dict] = []
        self._begin(0)

    def unread(self) -> int:
        """Return how many bytes of the file were not read yet."""
        try:
            info = os.stat(self._path)
        except OSError:
            return 0
        same = info.st_ino == self._file and info.st_size >= self._offset
        return info.st_size - (self._offset if same else 0)

    @property
    def count(self) -> int:
        """How many lines the file had when it was last read."""
        return self._count

    def lines(self) -> list[dict]:
        """Return the lines as numbers by name, oldest first; not to be changed."""
        with self._lock:
            self._read()
            return self._lines

    def _begin(self, file: int) -> None:
        self._file, self._offset, self._last, self._inside = file, 0, b"", False
        self._count, self._stride = 0, 1
        self._kept: list[tuple[int, dict]] = []
        self._latest: deque[tuple[int, bytes]] = deque(maxlen=self._room)
        self._lines = []

    def _read(self) -> None:
        try:
            with open(self._path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if not self._continues(file):
                    self._begin(os.fstat(file.fileno()).st_ino)
                if size == self._offset:
                    return
                file.seek(self._offset)
                while self._count < MAX_LINES and (line := file.readline(MAX_LINE_BYTES)):
                    whole = line.endswith(b"\n")
                    if not whole and len(line) < MAX_LINE_BYTES:
                        break  # it is still being written
                    if whole and not self._inside:
                        self._take(line)
                    self._inside = not whole  # of a line that is too long, which is passed over
                    self._offset, self._last = self._offset + len(line), line[-_LOOKED_BACK:]
        except FileNotFoundError:
            self._begin(0)
        except OSError:
            return
        self._lines = self._sampled()

    def _continues(self, file: BinaryIO) -> bool:
        """Whether the file begins with what was read of it."""
        info = os.fstat(file.fileno())
        if info.st_ino != self._file or info.st_size < self._offset:
            return False
        file.seek(self._offset - len(self._last))
        return file.read(len(self._last)) == self._last

    def _take(self, line: bytes) -> None:
        number = self._count
        self._count += 1
        self._latest.append((number, line))
        if number % self._stride or (record := _numbers(line)) is None:
            return
        self._kept.append((number, record))
        if len(self._kept) > 2 * self._most:
            self._stride *= 2
            self._kept = [entry for entry in self._kept if entry[0] % self._stride == 0]

    def _sampled(self) -> list[dict]:
        if self._stride == 1:
            return [record for _, record in self._kept]
        first = self._latest[0][0]
        latest = [record for _, line in self._latest if (record := _numbers(line)) is not None]
        return [record for number, record in self._kept if number < first] + latest


def _raw_lines(file: BinaryIO, most_bytes: int | None) -> Iterator[bytes]:
    """Yield lines of at most ``MAX_LINE_BYTES``; longer ones are passed over without being held."""
    read, inside = 0, False
    while (most_bytes is None or read < most_bytes) and (line := file.readline(MAX_LINE_BYTES)):
        read += len(line)
        begun_inside, inside = inside, len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
        if not (inside or begun_inside):
            yield line


def _object(line: bytes) -> dict | None:
    try:
        record = parse_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _numbers(line: bytes) -> dict | None:
    if line.count(b"[") + line.count(b"{") > MAX_KEYS:  # not flat, and slow to read
        return None
    record = _object(line)
    if record is None:
        return None
    entries = ((name, value) for name, value in record.items() if isinstance(value, int | float))
    return dict(islice(entries, MAX_KEYS))


def _too_deep(data: bytes) -> bool:
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _NESTING.finditer(data):
        if token[0] in (b"[", b"{"):
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token[0] in (b"]", b"}"):
            depth -= 1
    return False


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return HALF_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(part) for name, part in value.items()}
    return value
