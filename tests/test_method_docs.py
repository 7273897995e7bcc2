"""docs/METHODS.md is what the table says."""

import re

from trainers.cli import main
from trainers.method_docs import methods_page
from trainers.methods import METHODS


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


def test_extensions_say_so():
    page = methods_page()
    assert "| works with | flow, diffusion (extended) |" in page
    assert "| works with | flow (extended), diffusion |" in page
