"""A base model's license on the card: an identifier of the Hub however it was spelled, else its own name."""

import re

import pytest

from rsm_app.hub.bases import UNKNOWN, describe
from rsm_app.hub.licenses import LICENSES, license_id, license_name
from tests.models.tiny_pipelines import save

SPELLINGS = {
    "MIT License": "mit",
    "The MIT License (MIT)": "mit",
    "apache2": "apache-2.0",
    "Apache License, Version 2.0": "apache-2.0",
    "CreativeML Open RAIL-M": "creativeml-openrail-m",
    "CreativeML Open RAIL++-M License": "openrail++",
    "GPLv3": "gpl-3.0",
    "GNU General Public License v3.0": "gpl-3.0",
    "GPL-3.0-only": "gpl-3.0",
    "3-Clause BSD License": "bsd-3-clause",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "Creative Commons Attribution-NonCommercial 4.0 International": "cc-by-nc-4.0",
    "CC0 1.0 Universal": "cc0-1.0",
    "Llama 3.1": "llama3.1",
}
OWN_NAMES = {
    "proprietary": "proprietary",
    "GPL-2.0-or-later": "gpl-2.0-or-later",
    "Business Source License 1.1": "business-source-license-1.1",
    "FLUX.1 [dev] Non-Commercial License": "flux.1-dev-non-commercial-license",
    "See the file LICENSE\nand ask us": "see-the-file-license",
    "許諾": "",
    "x" * 500: "x" * 96,
}
OWN = "license: other\nlicense_name: Ours"


@pytest.mark.parametrize(("text", "identifier"), SPELLINGS.items())
def test_a_license_in_words_is_recognized(text, identifier):
    assert license_id(text) == identifier


@pytest.mark.parametrize("identifier", sorted(LICENSES))
def test_every_identifier_stands_for_itself_in_any_case(identifier):
    assert license_id(identifier) == license_id(identifier.upper()) == identifier


@pytest.mark.parametrize(("text", "name"), OWN_NAMES.items())
def test_any_other_license_keeps_a_name_that_the_hub_takes(text, name):
    assert license_id(text) is None and license_name(text) == name
    assert not name or re.fullmatch("[a-z0-9-.]+", name)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save("tiny-pixart", tmp_path_factory.mktemp("models") / "my-base")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("license: MIT License", ("mit", "", "")),
        ("license: [Apache 2.0]", ("apache-2.0", "", "")),
        ("license: proprietary", ("other", "proprietary", "")),
        ("license: no", ("other", UNKNOWN, "")),
        ("license: 許諾", ("other", UNKNOWN, "")),
        ("license: {id: mit}", ("other", "id-mit", "")),
        (f"{OWN}\nlicense_link: https://a.example/l", ("other", "ours", "https://a.example/l")),
        (f"{OWN}\nlicense_link: LICENSE.md", ("other", "ours", "")),
        ("license: ours\nlicense_link: 'javascript://%0aalert(1)'", ("other", "ours", "")),
        ("license: ours\nlicense_link: 'https://a.example/) [x](y'", ("other", "ours", "")),
    ],
)  # fmt: skip
def test_a_folder_s_readme_is_taken_at_its_word_and_never_copied_blindly(base, metadata, expected):
    (base / "README.md").write_text(f"---\n{metadata}\n---\n# base\n", encoding="utf-8")
    found = describe(str(base))
    assert (found.license, found.license_name, found.license_link) == expected
    assert found.license in LICENSES
