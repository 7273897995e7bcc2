"""JSON of a stranger costs what its limits allow, and files that grow are read on, not again."""

import json
import os
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers import bounded_json
from trainers.bounded_json import (
    MAX_DEPTH,
    MAX_LINE_BYTES,
    MAX_RECORD_BYTES,
    SampledLines,
    iter_lines,
    parse_json,
    read_json,
    read_lines,
    trim_lines,
)
from trainers.run_folder import append_line, keep_lines

MB = 2**20
BOMBS = {
    "deep": b"[" * MB,
    "deep objects": b'{"a":' * 100_000,
    "just too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "many lists": b"[" + b"[]," * 300_000 + b"1]",
    "many objects": b'{"a":[' + b"{}," * 300_000 + b"1]}",
    "quotes without an end": b'"' * 300_001 + b"[{" * 60,
    "escaped quotes without an end": b'"' + b'\\"' * 300_000 + b"[" * 60,
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "digits": b'{"a": ' + b"9" * 300_000 + b"x}",
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


@given(VALUES, st.booleans())
def test_what_is_sound_is_read_as_the_library_reads_it(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_at_a_small_price(bomb, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):  # noqa: PT011 (each has its own words)
            parse_json(bomb)
        assert read_json(path) is None and read_lines(path) == []
        assert tracemalloc.get_traced_memory()[1] < 4 * MB + 4 * len(bomb)
    finally:
        tracemalloc.stop()


def test_brackets_in_texts_are_no_depth():
    assert parse_json(json.dumps(["[" * 100, '\\"[{' * 50]).encode()) == ["[" * 100, '\\"[{' * 50]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'"a\ud800b"', "a\ufffdb"),
        (rb'{"\udfff": ["\uD800"]}', {"\ufffd": ["\ufffd"]}),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b"[999999999999999999, 12345678901234567890]", [999999999999999999, 12345678901234567890.0]),
    ],
)
def test_what_no_database_and_no_network_takes_is_replaced(text, value):
    assert parse_json(text) == value
    json.dumps(value, ensure_ascii=False).encode()


def test_records_and_lines_are_read_up_to_their_sizes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b'{"a": 1}' + b" " * MAX_RECORD_BYTES)
    assert read_json(path) is None and read_json(path, 2 * MAX_RECORD_BYTES) == {"a": 1}
    long = b'{"a": "' + b"x" * (3 * MAX_LINE_BYTES) + b'"}\n'
    path.write_bytes(b'{"a": 1}\n' + long + b'[1]\nno\n{"a": 2}\n' + long + b'{"a": 3}\n{"a": 4')
    assert [line["a"] for line in read_lines(path)] == [1, 2, 3]
    assert [line["a"] for line in read_lines(path, most_bytes=MAX_LINE_BYTES)] == [1]
    assert len(read_lines(path, most_lines=2)) == 2
    assert list(iter_lines(tmp_path / "none")) == []


def test_a_file_of_lines_is_trimmed_whatever_its_size(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [b'{"step": %d, "kept":  1.50}' % n for n in range(5)]
    path.write_bytes(b"\n".join(lines) + b'\n{"step": 9')
    keep_lines(path, lambda line: line["step"] <= 2)
    assert path.read_bytes() == b"\n".join(lines[:3]) + b"\n", "as they were, without the torn one"
    assert os.listdir(tmp_path) == ["metrics.jsonl"]
    trim_lines(tmp_path / "none", tmp_path / "empty", lambda line: True)
    assert (tmp_path / "empty").read_bytes() == b""


# -- files that grow -----------------------------------------------------------------------------------


def write(path, numbers, mode="w"):
    with open(path, mode, encoding="utf-8") as file:
        file.writelines(f'{{"step": {n}, "reward_mean": {n / 7}, "name": "x"}}\n' for n in numbers)


def test_a_short_file_is_read_whole_and_read_on_as_it_grows(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    sampled = SampledLines(path)
    assert sampled.lines() == [] and sampled.unread() == 0
    write(path, range(100))
    assert sampled.unread() == path.stat().st_size
    assert sampled.lines() == [{"step": n, "reward_mean": n / 7} for n in range(100)]
    read = []
    monkeypatch.setattr(bounded_json, "parse_json", lambda data: read.append(data) or json.loads(data))
    append_line(path, {"step": 100})
    with open(path, "a") as file:
        file.write('{"step": 101')  # torn
    assert sampled.lines()[-1] == {"step": 100} and len(read) == 1
    append_line(path, {"step": 102})  # closes the torn line first
    assert [line["step"] for line in sampled.lines()[-2:]] == [100, 102] and sampled.count == 103


def test_a_long_file_is_sampled_evenly_and_its_end_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sampled = SampledLines(path, most=100, latest=10)
    first = None
    for begin in range(0, 5000, 500):
        write(path, range(begin, begin + 500), "a")
        steps = [line["step"] for line in sampled.lines()]
        assert len(steps) <= 2 * 100 + 10 and steps == sorted(set(steps))
        assert steps[0] == 0 and steps[-10:] == list(range(begin + 490, begin + 500))
        spaces = {after - before for before, after in zip(steps[:-11], steps[1:-10], strict=False)}
        assert len(spaces) == 1, "evenly"
        assert first is None or set(steps[:-10]) <= first | set(range(begin, begin + 500)), "and in place"
        first = set(range(0, begin + 500)) if first is None else set(steps)
    assert sampled.lines() == SampledLines(path, most=100, latest=10).lines()


@pytest.mark.parametrize("same_file", [True, False])
@pytest.mark.parametrize("longer", [True, False])
def test_a_file_that_was_replaced_is_read_anew(tmp_path, same_file, longer):
    path = tmp_path / "metrics.jsonl"
    write(path, range(50))
    sampled = SampledLines(path)
    assert len(sampled.lines()) == 50
    other = path if same_file else tmp_path / "other"
    write(other, range(1000, 1000 + (200 if longer else 20)))
    os.replace(other, path)
    assert sampled.lines()[0]["step"] == 1000 and len(sampled.lines()) == (200 if longer else 20)
    path.unlink()
    assert sampled.lines() == [] and sampled.unread() == 0


def test_a_hostile_file_of_lines_costs_little(tmp_path):
    path = tmp_path / "metrics.jsonl"
    hostile = [
        b"{}\n" * 500_000,
        b"[" * (5 * MB),
        (b'{"step": 1, "a": [' + b"[]," * 50_000 + b"1]}\n") * 20,
        b'{"step": 1, ' + b", ".join(b'"k%d": 1' % n for n in range(5000)) + b"}\n",
        random.Random(0).randbytes(5 * MB),
    ]
    for content in hostile:
        path.write_bytes(content)
        sampled = SampledLines(path)
        tracemalloc.start()
        try:
            lines = sampled.lines()
            assert tracemalloc.get_traced_memory()[1] < 16 * MB
        finally:
            tracemalloc.stop()
        assert len(lines) <= 2 * bounded_json.MOST_SAMPLED + 64
        assert all(len(line) <= bounded_json.MAX_KEYS for line in lines)
