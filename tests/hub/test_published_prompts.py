"""Own prompts in tables are published as plain lines, or as JSON lines where rewards read more of them."""

import json

import pytest

from rsm_app.hub.bases import describe
from rsm_app.hub.records import PROMPT_NAMES, recipe
from trainers.config import RunConfig
from trainers.prompt_files import read_bytes
from trainers.run_folder import RunFolder, write_json

FILES = {
    "one.csv": ("prompt\na red circle\n", "prompts.txt"),
    "two.tsv": ("Prompt\tCategory\na red circle\tShapes\n", "prompts.jsonl"),
    "three.JSON": ('["a red circle"]', "prompts.txt"),
    "four.json": ('[{"caption": "a red circle", "n": 1}]', "prompts.jsonl"),
    "five.JSONL": ('{"prompt": "a red circle"}\n', "prompts.jsonl"),
    "six.txt": ("# mine\na red circle\n", "prompts.txt"),
}


@pytest.mark.parametrize("name", FILES)
def test_tables_are_published_in_a_form_that_an_import_reads(name, tmp_path):
    text, target = FILES[name]
    (tmp_path / name).write_text(text)
    config = RunConfig(reward="brightness", prompts=str(tmp_path / name))
    folder = RunFolder(tmp_path / "run")
    write_json(folder.config, json.loads(config.to_json()))
    made = recipe(folder, config, describe(config.model))
    assert made.settings["prompts"] == target and target in PROMPT_NAMES and [*made.prompt_files] == [target]
    content = made.prompt_files[target]
    data = content if isinstance(content, bytes) else content.read_bytes()
    (row,) = read_bytes(data, target)
    mine = read_bytes(text.encode(), name)[0].record
    assert row.prompt == "a red circle" and {**row.record} == ({**mine} if mine else {})
