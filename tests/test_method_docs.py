"""docs/METHODS.md is what the table says."""

import re

from trainers.cli import main
from trainers.lab.ablations import causes
from trainers.method_docs import methods_page
from trainers.methods import METHODS
from trainers.run_folder import append_line


def test_the_page_is_up_to_date(repository):
    stored = (repository / "docs" / "METHODS.md").read_text(encoding="utf-8")
    assert stored == methods_page(), "run: python -m trainers list --methods-page > docs/METHODS.md"


def test_the_command_prints_the_page(capsys):
    assert main(["list", "--methods-page"]) == 0
    assert capsys.readouterr().out == methods_page()


def test_every_row_has_its_section_idea_and_source():
    page = methods_page()
    for method in METHODS:
        section = re.search(rf"^## {method.name}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        assert section is not None
        assert method.idea and method.idea in section[1]
        assert method.origin


def trained(method, evaluations, share, **changes):
    """A row of the laboratory's records."""
    return {
        "method": method, "family": "flow", "beta": 1.0, "share": share, "floor": 0.06, "reward": 4.0,
        "kl": 0.5, "evaluations": evaluations, "settings": {}, "error": "", "seed": 0,
    } | changes  # fmt: skip


def test_the_laboratory_shows_what_training_takes_away_and_what_the_row_leaves(tmp_path):
    path = tmp_path / "laboratory.jsonl"
    rows = [trained("grpo", 3000, 0.2), trained("vgg_flow", 300, 0.98), trained("grpo", 300, 0.5)]
    rows += [trained("vgg_flow", 3000, 0.9), trained("sqdf", 9, 0.083, beta=3.0, settings={"discount": 1.0})]
    for row in rows:
        append_line(path, row)
    page = methods_page(tmp_path / "none.jsonl", path)
    order = re.findall(r"^\| `(\w+)` \| 300 \| (\S+) \| 3,000 \| (\S+) ", page, re.MULTILINE)
    assert order == [("grpo", "0.50", "0.20"), ("vgg_flow", "0.98", "0.90")]
    assert "| flow | `sqdf` | 3 | discount = 1.0 | 0 | 9 | 0.083 | 0.060 |" in page
    assert "In the laboratory" not in methods_page(tmp_path / "none.jsonl", tmp_path / "none.jsonl")


def test_explanations_stand_with_what_is_left_without_their_cause(tmp_path):
    path = tmp_path / "laboratory.jsonl"
    rows = [trained("vgg_flow", 300, 0.98), trained("vgg_flow", 3000, 0.9)]
    rows += [
        trained("vgg_flow", 3000, share, without=text) for text, share in (("fades", 0.4), ("reads", 0.7))
    ]
    for row in rows:
        append_line(path, row)
    (line,) = re.findall(r"^\| `vgg_flow` .*$", methods_page(tmp_path / "none.jsonl", path), re.MULTILINE)
    assert line.endswith("| fades: 0.40; reads: 0.70 |")
    assert "| 3,000 | 0.90 |" in line


def test_rows_that_could_be_biased_have_causes_to_take_away():
    found = {method.name: [cause.text for cause in causes(method)] for method in METHODS}
    assert "fades its guidance by (1 − t)²" in found["vgg_flow"]
    assert any("denoising error" in text for text in found["awm"])
    assert found["grpo"] == found["reinforce_kl"] == []


def test_extensions_say_so():
    page = methods_page()
    assert "| works with | flow, diffusion (extended) |" in page
    assert "| works with | flow (extended), diffusion |" in page
