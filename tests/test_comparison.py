"""The comparison on pictures: real races, a file that is continued, and tables that say what happened."""

import json

import pytest

from trainers.cli import main
from trainers.comparison import races, run_races
from trainers.comparison_report import save_figure, tables
from trainers.methods import fitting_methods


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """One short race, run once."""
    path = tmp_path_factory.mktemp("comparison") / "races.jsonl"
    wanted = races(["tiny-flow"], "tiny_clip", ["rsm_first_order_flow"], 1, 0.1, 400, 8)
    return path, wanted, run_races(wanted, path, 1, lambda text: None)


def test_every_fitting_row_takes_part_seed_by_seed():
    found = races(["tiny-flow", "tiny-diffusion"], "tiny_clip", [], 2, 1.0, 1, 8)
    rows = {model: fitting_methods(family, True) for model, family in FAMILIES.items()}
    expected = {(m, row, seed) for seed in (0, 1) for m in FAMILIES for row in rows[m] if row != "custom"}
    assert {(race.model, race.estimator, race.seed) for race in found} == expected
    assert [race.seed for race in found] == sorted(race.seed for race in found)


FAMILIES = {"tiny-flow": "flow", "tiny-diffusion": "diffusion"}


def test_a_race_is_measured_when_it_crosses_either_line(raced):
    (record,) = raced[2]
    first, second = record["by_seconds"], record["by_evaluations"]
    assert record["error"] == ""
    assert first["updates"] == 1
    assert first["seconds"] >= 0.1
    assert second["evaluations"] >= 400 > second["evaluations"] * (1 - 1 / second["updates"])
    assert first["paired"]["n"] == 8
    assert first["paired"]["mean_gain"] != 0.0
    assert first["drift"] > 0
    assert set(first["others"]) == {"shapes", "shapes_exact", "colorfulness"}


def test_finished_races_are_not_run_again(raced):
    path, wanted, records = raced
    before, said = path.read_bytes(), []
    assert run_races(wanted, path, 1, said.append) == records
    assert path.read_bytes() == before
    assert said == []


def test_the_table_ranks_by_gain_and_says_what_broke(raced, tmp_path):
    (record,) = raced[2]
    better = json.loads(json.dumps(record)) | {"estimator": "awm"}
    better["by_seconds"]["paired"]["mean_gain"] = 9.0
    broken = record | {"estimator": "ram", "by_seconds": None, "by_evaluations": None, "error": "It broke."}
    lines = tables([record, broken, better]).splitlines()
    order = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert order == ["awm", "rsm_first_order_flow", "ram"]
    assert "+9.0000" in lines[4]
    assert "broke on every seed: It broke." in lines[6]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    save_figure([record, better], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000


def test_wrong_input_is_told_together_before_anything_loads(capsys, tmp_path):
    words = ["bench", "methods", "--model", "tiny-flow", "--estimator", "vgg_flow", "--reward", "shapes"]
    code = main([*words, "--seeds", "0", "--plot", "x.doc", "--out", str(tmp_path / "out.jsonl")])
    said = capsys.readouterr().err
    assert code == 2
    for part in ("'--seeds' must be at least 1", "'--plot' must end in", "'vgg_flow' reads reward gradients"):
        assert part in said
    assert not (tmp_path / "out.jsonl").exists()
