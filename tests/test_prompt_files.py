"""Prompt files as people have them: each gives the prompts alone, or a sentence that says what is read."""

import codecs
import json

import pytest

from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.prompt_files import as_text, read_bytes, read_text
from trainers.prompts import load_prompts, load_rows, prompt_records, read_prompts

TWO = ["a wooden boat, blue", 'a sign that says "open"']
TEXT = f"{TWO[0]}\n{TWO[1]}\n"
OBJECTS = [{"prompt": prompt, "tag": "counting", "n": number} for number, prompt in enumerate(TWO)]
TABLES = {
    "boats.txt": TEXT,
    "mac.txt": TEXT.replace("\n", "\r"),
    "windows.txt": TEXT.replace("\n", "\r\n"),
    "with remarks.txt": f"# a remark\n\n  {TWO[0]}  \n\n{TWO[1]}",
    "parti.tsv": f"Prompt\tCategory\tNote\n{TWO[0]}\tBoats\t\n{TWO[1]}\tText\tquotes mean quotes\n",
    "literal quotes.tsv": f'"Style"\tTEXT\n"oil" paint\t{TWO[0]}\n"ink\t{TWO[1]}\n',
    "spreadsheet.TSV": 'id\tcaption\n1\t"a wooden boat, blue"\n2\t"a sign that says ""open"""\n',
    "drawbench.csv": 'Prompts,Category\n"a wooden boat, blue",Boats\n"a sign that says ""open""",Text\n',
    "spreadsheet.CSV": 'Nr;Prompt\n1;a wooden boat, blue\n2;"a sign that says ""open"""\n',
    "one column.csv": 'prompt\na wooden boat, blue\n"a sign that says ""open"""\n',
    "lines in a cell.csv": 'n,text\n1,"a wooden boat,\nblue"\n\n2,"a sign that\r\nsays ""open"""\n3,\n',
    "hpd.json": json.dumps(TWO, indent=1),
    "objects.json": json.dumps(OBJECTS),
    "held.JSON": json.dumps({"version": 2, "tags": ["x"], "rows": [{"Caption": prompt} for prompt in TWO]}),
    "named.json": json.dumps({"prompts": TWO, "seeds": [1, 2]}),
    "coco.json": json.dumps(
        {"info": {"year": 2014}, "images": [{"id": 1}], "annotations": [{"caption": p, "id": 1} for p in TWO]}
    ),
    "numbered.json": json.dumps({"00000": {"prompt": TWO[0]}, "00001": {"prompt": TWO[1]}}),
    "really lines.json": "".join(json.dumps(record) + "\n" for record in OBJECTS),
    "upper.JSONL": "".join(json.dumps(record) + "\r\n\r\n" for record in OBJECTS),
    "texts.ndjson": "".join(json.dumps(prompt) + "\n" for prompt in TWO),
    "json in disguise.txt": json.dumps(TWO),
    "json lines in disguise.txt": "".join(json.dumps(record) + "\n" for record in OBJECTS),
    "table in disguise.txt": f"prompt\tcategory\n{TWO[0]}\tBoats\n{TWO[1]}\tText\n",
    "commas in disguise.txt": 'prompt,category\n"a wooden boat, blue",Boats\n"a sign that says ""open""",x\n',
    "no ending": TEXT,
}
MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("name", TABLES)
def test_every_form_gives_the_prompts_and_nothing_else(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(TABLES[name].encode())
    assert load_prompts(str(path)) == TWO


@pytest.mark.parametrize("encoding", MARKS)
@pytest.mark.parametrize("name", ["windows.txt", "parti.tsv", "drawbench.csv", "objects.json", "upper.JSONL"])
def test_byte_order_marks_are_followed(name, encoding):
    data = MARKS[encoding] + TABLES[name].encode(encoding)
    assert [row.prompt for row in read_bytes(data, name)] == TWO


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\f", "\v", "\x1c", "\x1e"])
def test_only_line_ends_end_a_line(sign):
    """A set pasted from a web page has separators of Unicode within its prompts."""
    for name, text in {
        "plain.txt": f"a boat{sign}at dawn\na lamp",
        "table.csv": f"prompt,n\na boat{sign}at dawn,1\na lamp,2",
        "lines.jsonl": f'{{"prompt": "a boat{sign}at dawn"}}\n{{"prompt": "a lamp"}}'.replace(
            "\x1c", "\u2028"
        ),
    }.items():
        if sign in "\f\v\x1e" and name.endswith("jsonl"):
            continue  # JSON allows no control characters in a text
        rows = read_bytes(text.encode(), name)
        assert [row.prompt for row in rows] == ["a boat at dawn", "a lamp"], name
        assert [row.number for row in rows][-1] == len(rows) + name.endswith("csv")


REFUSED = {
    "no such column.csv": ("id,category\n1,x\n", "names 'id', 'category', and no column of prompts"),
    "prompts alone.csv": ("a red boat\na lamp\n", "names 'a red boat', and no column of prompts"),
    "commas.csv": (
        "prompt,n\na boat, blue,1\n",
        "Line 2 of commas.csv has 3 cells, but its first line names 2",
    ),
    "open quote.csv": ('prompt,n\n"a boat,1\na lamp,2\n', "cannot be read as a table: line 2"),
    "half a quote.csv": ('prompt,n\n"a boat" at sea,1\n', "cannot be read as a table: line 2"),
    "empty.csv": ("", "names nothing, and no column of prompts"),
    "numbers.json": ("[1, 2]", "Entry 1 of numbers.json is not a JSON object"),
    "two lists.json": ('{"a": ["x"], "b": ["y"]}', "holds no list of prompts"),
    "a number.json": ("7", "holds no list of prompts"),
    "broken.json": ('["a boat", ', "Line 1 of broken.json is not a JSON object"),
    "deep.json": ("[" * 10**5, "Line 1 of deep.json is not a JSON object"),
    "late.jsonl": ('{"prompt": "a boat"}\n\n{"tag": 1}\n', "Line 3 of late.jsonl is not a JSON object"),
    "half a character.json": (
        r'["a boat \ud83d"]',
        "Entry 1 of half a character.json holds half",
    ),
    "set.yaml": (
        "- a boat\n",
        "set.yaml cannot be read here; prompts are read from text with one",
    ),
    "sheet.xlsx": ("PK", "sheet.xlsx cannot be read here"),
    "bytes.txt": ("a\0b\n", "bytes that are no text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_with_a_sentence_that_names_what_is_wrong(name):
    text, sentence = REFUSED[name]
    with pytest.raises(InputError) as caught:
        read_bytes(text.encode(), name)
    assert sentence in str(caught.value) and str(caught.value).endswith((".", "}."))


def test_a_table_without_prompts_below_its_header_is_told_as_one(tmp_path):
    (tmp_path / "set.csv").write_text("prompt,n\n,1\n")
    with pytest.raises(InputError, match="holds no prompts"):
        load_prompts(str(tmp_path / "set.csv"))
    with pytest.raises(InputError, match="Line 2 of the pasted text has 1001 characters"):
        read_prompts(f"a boat\n{'x' * 1001}", "the pasted text")


def test_what_a_table_says_beside_its_prompts_reaches_rewards(tmp_path):
    held, trained = tmp_path / "held.tsv", tmp_path / "trained.json"
    held.write_text("PROMPT\tcategory\na lamp\tThings\n")
    trained.write_text(json.dumps({"rows": OBJECTS}))
    found = prompt_records(RunConfig(prompts=str(trained), heldout_prompts=str(held)))
    assert found[TWO[1]] == OBJECTS[1] and found["a lamp"]["category"] == "Things"
    assert prompt_records(RunConfig(prompts=str(tmp_path / "gone.txt"))) == {}


@pytest.mark.parametrize("name", [*TABLES, "hashes.json", "brackets.csv"])
def test_the_text_that_the_app_keeps_of_a_set_is_read_alike(name):
    """Nothing is lost between an upload and the run's folder: neither records nor odd first characters."""
    more = {
        "hashes.json": '["#1 in line", "[a box]"]',
        "brackets.csv": 'text\n"[""a"", ""b""]"\n# not a remark',
    }
    rows = read_bytes((TABLES | more)[name].encode(), name)
    again = read_text(as_text(rows), "kept.txt", ".txt")
    assert [row.prompt for row in again] == [row.prompt for row in rows]
    if any(row.record for row in rows):
        assert [row.record for row in again] == [row.record for row in rows]


def test_parquet_is_read_where_pyarrow_is_there(tmp_path):
    path = tmp_path / "set.PARQUET"
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        path.write_bytes(b"PAR1")
        with pytest.raises(InputError, match="pyarrow, which reads those, is not installed"):
            load_prompts(str(path))
        return
    parquet.write_table(pyarrow.table({"n": [1, 2, 3], "Prompt": [*TWO, None]}), path)
    rows = load_rows(str(path))
    assert [row.prompt for row in rows] == TWO and rows[1].record["n"] == 2 and rows[1].unit == "Row"
    parquet.write_table(pyarrow.table({"n": [1]}), path)
    with pytest.raises(InputError, match="has the columns n, and none of prompts"):
        load_prompts(str(path))
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        load_prompts(str(path))


def test_a_visitor_s_parquet_file_is_not_unpacked():
    with pytest.raises(InputError, match="cannot be read here"):
        read_bytes(b"PAR1", "set.parquet")


@pytest.mark.parametrize("line", ["text, blue and red", "a prompt,a caption", "prompt", "red,blue"])
def test_a_first_prompt_with_commas_is_no_header(line):
    assert [row.prompt for row in read_bytes(f"{line}\nanother one\n".encode(), "x.txt")][0] == line
