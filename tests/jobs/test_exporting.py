"""A run as a zip: everything worth taking away, nothing of the machine."""

import json
import os
import re
import zipfile

import pytest

from rsm_app.jobs.exporting import export
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import ended, small_config, wait_for
from trainers.errors import FaultError, InputError


def contents(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_a_real_run_is_exported_whole_without_logs_and_without_paths(supervisor, store, tmp_path):
    run = supervisor.submit(small_config(), prompts="a red circle\na blue square\n", owner="ann")
    with pytest.raises(InputError, match="not ended"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    wait_for(ended(run), what="the end of the run")
    found = contents(export(run, tmp_path / "out"))
    names = {name.removeprefix(f"{run.id}/") for name in found}
    assert {"config.json", "prompts.txt", "report.json", "metrics.jsonl"} <= names
    assert {"adapter/pytorch_lora_weights.safetensors", "samples/pairs.jsonl"} <= names
    pairs = run.folder.read_pairs()
    assert {pair[side] for pair in pairs for side in ("before", "after")} <= names and len(pairs) == 8
    kinds = r"(config|report)\.json|metrics\.jsonl|prompts\.txt|(samples|adapter)/.*"
    assert all(re.fullmatch(kinds, name) for name in names), names
    for name in ("report.json", "metrics.jsonl", "prompts.txt"):
        assert found[f"{run.id}/{name}"] == (run.path / name).read_bytes()
    settings = json.loads(found[f"{run.id}/config.json"])
    assert settings == run.settings() | {"prompts": "prompts.txt"}
    here = str(store.root).encode()
    assert not [name for name, content in found.items() if here in content]


def test_a_report_is_exported_without_the_folders_of_a_function_in_a_file(store, tmp_path):
    run, own = finished_run(store, 0), f"{tmp_path}/mine.py:score"
    report = {"reward": f"shapes:1,{own}:2", "after": {"others": {own: {"mean": 1.0}}}}
    run.folder.report.write_text(json.dumps(report))
    found = json.loads(contents(export(run, tmp_path / "out"))[f"{run.id}/report.json"])
    assert found["reward"] == "shapes:1,mine.py:score:2" and set(found["after"]["others"]) == {
        "mine.py:score"
    }


def test_what_never_began_is_exported_with_its_settings(store, tmp_path):
    run = store.create()
    run.request.write_text('{"reward": "shapes"}')
    assert json.loads(contents(export(run, tmp_path))[f"{run.id}/config.json"]) == {"reward": "shapes"}


def test_links_and_half_written_files_stay_out(store, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.txt").write_text("secret")
    run = finished_run(store, 0)
    (run.path / "samples" / ".pairs.jsonl.x").write_text("{")
    (run.path / "samples" / "after").mkdir()
    (run.path / "samples" / "after" / "1.png").write_bytes(b"picture")
    os.symlink(secret / "key.txt", run.path / "samples" / "key.txt")
    os.symlink(secret, run.path / "samples" / "more")
    os.symlink(secret, run.path / "adapter")
    os.symlink(secret / "key.txt", run.folder.report)
    found = contents(export(run, tmp_path / "out"))
    assert {name.partition("/")[2] for name in found} == {
        "config.json",
        "metrics.jsonl",
        "samples/after/1.png",
    }


def test_a_place_that_cannot_be_written_gets_a_sentence(store, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FaultError, match="could not be written"):
        export(finished_run(store, 0), blocked / "out")
