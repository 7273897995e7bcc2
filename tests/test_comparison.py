"""The comparison on pictures: real races, a file that is continued, and tables that say what happened."""

import json

import pytest
import torch

from trainers.cli import main
from trainers.comparison import _Field, races, run_races
from trainers.comparison_report import fields, findings, save_figure, tables
from trainers.method_docs import methods_page
from trainers.methods import fitting_methods
from trainers.run_folder import append_line


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


def record_of(method, *gains, error=""):
    """Records of one row, a seed for each gain."""
    line = {"others": {}, "diversity": 1.0, "drift": 0.1, "updates": 3, "seconds": 5.0}
    shared = {"model": "tiny-flow", "reward": "tiny_clip", "seconds": 5.0, "evaluations": 9, "pictures": 8}
    return [
        shared
        | {"estimator": method, "seed": seed, "error": error, "by_evaluations": None}
        | {"by_seconds": line | {"paired": {"mean_gain": gain, "z": 1.0}}}
        for seed, gain in enumerate(gains)
    ]


def test_findings_name_what_broke_what_got_worse_what_stood_still_and_the_ratio_to_grpo():
    records = record_of("grpo", 0.010, 0.012, 0.008) + record_of("awm", 0.04, 0.041, 0.039)
    records += record_of("ppo", 0.01, -0.01, 0.001) + record_of("ram", -0.02, -0.021, -0.022)
    records += record_of("diffusion_nft", 0.01, 0.012, 0.011, error="It broke.")
    fooled = record_of("sqdf", 0.3, 0.31)
    for record in fooled:
        record["by_seconds"]["others"] = {"shapes": -0.2}
    told = findings(records)
    assert "cost of `shapes`" not in told
    assert "`sqdf` raised it at the cost of `shapes`" in findings(records + fooled)
    assert "`diffusion_nft` broke on at least one seed." in told
    assert "`ram` made the reward worse." in told
    assert "`ppo` did not move the reward" in told
    assert "`awm` gained most in equal seconds, +0.0400; `grpo` gained +0.0100. Gain over" in told
    assert told.rstrip().endswith("Gain over that of `grpo`: `awm` 4.0.")


def test_rewards_are_not_ranked_against_each_other(tmp_path):
    shapes = [record | {"reward": "shapes"} for record in record_of("awm", 0.5)]
    records = record_of("grpo", 0.01) + shapes
    assert [[record["reward"] for record in mine] for mine in fields(records)] == [["tiny_clip"], ["shapes"]]
    assert "### tiny-flow on shapes: 5 s" in tables(records)
    assert "Gain over" not in findings(records)
    save_figure([record | {"by_evaluations": record["by_seconds"]} for record in records], tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 5_000


def test_no_ratio_is_given_where_grpo_gained_nothing_or_the_most():
    lost = findings(record_of("grpo", -0.01, -0.012) + record_of("awm", 0.04, 0.041))
    assert "Gain over" not in lost and "`grpo` gained -0.0110." in lost
    assert "Gain over" not in findings(record_of("grpo", 0.04, 0.041) + record_of("awm", 0.01, 0.011))


def test_the_methods_page_shows_the_records(tmp_path):
    records = tmp_path / "comparison.jsonl"
    for record in record_of("grpo", 0.01, 0.011) + record_of("awm", 0.04, 0.041):
        append_line(records, record)
    page = methods_page(records)
    assert "### tiny-flow on tiny_clip: 5 s or 9 network evaluations, 2 seeds" in page
    assert "`awm` gained most" in page
    assert "Compared on pictures" not in methods_page(tmp_path / "none.jsonl")


def test_pictures_are_numbered_on_the_device_that_indexes_them():
    """A processor's numbers cannot be indexed by those of a GPU, whose part the meta device plays."""
    field = _Field.__new__(_Field)
    field.items, field.noise = range(3), torch.empty(3, device="meta")
    assert field._numbers().device == field.noise.device
