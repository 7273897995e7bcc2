"""docs/DEFAULTS.md: our defaults beside the published ones, and a reason wherever they differ."""

import re

import pytest

from trainers import presets
from trainers.cli import main
from trainers.config import FIELDS
from trainers.custom import CUSTOM
from trainers.defaults_page import EVERY_ROW, defaults_page, together, written
from trainers.deviations import REASONS, SHARED
from trainers.deviations_embedded import EMBEDDED
from trainers.differences import (
    AUTO_KERNELS,
    PUBLISHED,
    changed,
    explained,
    keys,
    lines,
    own,
    published,
    reason,
    reference,
    same,
)
from trainers.method import Method
from trainers.methods import METHODS
from trainers.models import MODELS
from trainers.published import KINDS
from trainers.rewards import REWARDS
from trainers.samplers.families import FAMILY_KERNELS

NAMED = [method for method in METHODS if method.name != CUSTOM]


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs" / "DEFAULTS.md").read_text(encoding="utf-8")


def section(page: str, method: str, family: str) -> str:
    return titled(page, rf"{method}, {family}\b.*?")


def titled(page: str, head: str) -> str:
    found = re.search(rf"^## {head}$(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def missing(page: str) -> list[str]:
    """Every setting in which a preset differs from its row and its model, and that the page does not tell."""
    found = []
    for spec in MODELS:
        for method in NAMED:
            if spec.family not in method.families:
                continue
            told = section(page, method.name, spec.family)
            base = {name: field.default for name, field in FIELDS.items()} | spec.defaults | method.defaults
            for reward in REWARDS:
                sets = presets.prompt_sets(spec, [reward.name])
                base |= {"prompts": f"{sets}-train", "heldout_prompts": f"{sets}-heldout"}
                for name, value in presets.preset(spec.name, method.name, reward.name).items():
                    lines = [line for line in told.splitlines() if f"`{name}`" in line]
                    if value != base[name] and not any(written(value) in line for line in lines):
                        found.append(f"{spec.name}, {method.name}, {reward.name}: {name} = {value}")
    return found


def test_the_page_is_up_to_date(page):
    assert page == defaults_page(), "run: python -m trainers list --defaults-page > docs/DEFAULTS.md"


def test_the_command_prints_the_page(capsys):
    assert main(["list", "--defaults-page"]) == 0
    assert capsys.readouterr().out == defaults_page()


def test_every_named_row_has_its_home_families_and_their_source(page):
    for method in NAMED:
        for family in method.home:
            known = published(method.name, family)
            assert (known.source if known else "Nothing published") in section(page, method.name, family)


def test_no_preset_changes_a_row_without_a_line(page):
    assert missing(page) == []


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (("tiny-flow", "grpo"), "history_size", 7),  # a setting that no paper names
        (("sana", "pcpo_flow"), "kl_weight", 0.321),  # a model without a column
        (("tiny-diffusion", "awm"), "forward_draws", 11),  # a family for which no paper has the row
        (("tiny-flow", "diffusion_nft"), "heldout_prompts", "ocr-heldout"),
    ],
)
def test_a_planted_preset_is_missed_and_wants_a_reason(page, monkeypatch, place, name, value):
    whole = dict(presets.PAIRS) | {place: dict(presets.PAIRS.get(place, {})) | {name: value}}
    monkeypatch.setattr(presets, "PAIRS", whole)
    model, method = place
    found = missing(page)
    assert found and all(f"{model}, {method}, " in line and f": {name} = " in line for line in found)
    if name != "heldout_prompts":
        assert (method, model, name, reason(method, model, name)) in set(explained())
        assert f"`{name}`" in section(defaults_page(), method, MODELS.get(model).family)


def test_what_differs_is_told_for_its_row_or_with_what_a_model_has_for_every_row(page):
    usual = titled(page, EVERY_ROW)
    for method in NAMED:
        for family in method.home:
            told = section(page, method.name, family)
            for line in (line for line in lines(method, family) if not line.agrees):
                if line.models == line.usual:
                    assert f"`{line.field}`" in usual and written(own(*line.models, line.field)) in usual
                    assert f"`{line.field}` " in told
                else:
                    assert f"\n| `{line.field}` |" in told


def test_an_embedded_model_has_for_every_row_what_no_row_changes():
    told = {line.field: line.usual for line in lines(METHODS.get("rsm_zeroth_order_diffusion"), "diffusion")}
    assert told["rollout_steps"] == ("tiny-diffusion",)
    assert told["learning_rate"] == told["branches"] == ()  # settings and reasons of the row


def test_every_difference_has_a_reason():
    assert [difference[:3] for difference in explained() if not difference[3].strip()] == []


def test_no_reason_is_left_over():
    used = {
        next(key for key in keys(method, model, name) if key in REASONS)
        for method, model, name, why in explained()
        if why
    }
    assert set(REASONS) - used == set()
    assert set(SHARED) - {REASONS[key] for key in used} == set()


def test_reasons_name_rows_and_models_that_exist():
    scopes = {"*", EMBEDDED, "flow", "diffusion", *(spec.name for spec in MODELS)}
    rows = {"*", *(method.name for method in NAMED)}
    for row, scope, name in REASONS:
        assert row in rows and scope in scopes
        assert name in FIELDS or name == "lora_targets" or name in Method.__dataclass_fields__


def test_entries_of_the_log_that_reasons_cite_exist(repository):
    log = (repository / "docs" / "LOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (\S+): (.*)$", log, re.MULTILINE)
    cited = re.findall(r"\((\d{4}-\d\d-\d\d), ([^;)]*)", " ".join({*REASONS.values(), *SHARED.values()}))
    assert len(cited) > 10
    for date, entries in cited:
        known = [head for day, head in heads if day == date]
        for entry in entries.split(", "):
            assert any(head.startswith(entry) for head in known), (date, entry)


@pytest.mark.parametrize("known", PUBLISHED, ids=lambda known: f"{known.method}-{known.family}")
def test_published_tables_speak_of_settings_that_exist(known):
    method = METHODS.get(known.method)
    assert known.family in method.home
    assert set(known.fields) <= set(FIELDS) and set(known.row) <= set(Method.__dataclass_fields__)
    assert set(known.compositional) | set(known.ocr) <= set(known.settings) and known.source
    for name in known.settings:
        kind = type(FIELDS[name].default)
        for value in known.values(name):
            assert FIELDS[name].default is None or isinstance(value, kind), name


def test_every_row_is_in_one_table():
    assert len({(known.method, known.family) for known in PUBLISHED}) == len(PUBLISHED)


def test_nobody_presets_the_custom_row():
    assert not any(changed(spec.name, METHODS.get(CUSTOM)) for spec in MODELS)


def test_automatic_kernels_are_those_of_the_sampler():
    assert {family: names[0] for family, names in FAMILY_KERNELS.items()} == AUTO_KERNELS


def test_a_setting_that_differs_only_for_geneval_is_a_difference(monkeypatch):
    method = METHODS.get("grpo")
    line = next(line for line in lines(method, "flow") if line.field == "kl_weight")
    assert line.agrees and line.published == (1e-2, 4e-2, 4e-2, 1e-2)
    monkeypatch.setitem(
        presets.PAIRS, ("sd35-medium", "grpo"), {"kl_weight": 1e-2}
    )  # which overrides GenEval's
    line = next(line for line in lines(method, "flow") if line.field == "kl_weight")
    assert line.models == ("sd35-medium",)


@pytest.mark.parametrize(
    ("kind", "table", "place", "values"),
    [
        ("OCR", "PAIRS", ("sd35-medium", "diffusion_nft", "contrast_step"), {"contrast_step": 1.0}),
        ("pixels", "PIXEL_KL", ("tiny-flow", "grpo", "kl_weight"), 0.321),
    ],
)
def test_a_setting_that_differs_for_one_other_kind_is_a_difference(monkeypatch, kind, table, place, values):
    model, method, name = place
    monkeypatch.setitem(getattr(presets, table), (model, method), values)
    line = next(line for line in lines(METHODS.get(method), "flow") if line.field == name)
    ours = line.ours[reference("flow").index(model)]
    differing = [told for told, *pair in zip(KINDS, line.published, ours, strict=True) if not same(*pair)]
    assert differing == [kind] and line.models == (model,)


def test_a_row_trains_its_last_step_only_where_the_model_lets_it():
    for name in ("ppo", "sqdf"):
        line = next(line for line in lines(METHODS.get(name), "diffusion") if line.field == "last_step")
        assert line.published == (True,) and line.ours == ((True,), (False,))
        assert line.models == line.usual == ("tiny-diffusion",)
    line = next(line for line in lines(METHODS.get("grpo"), "diffusion") if line.field == "last_step")
    assert line.agrees and line.ours == ((False,), (False,))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((1e-2, 1e-2, 1e-2, 1e-2), "1e-2"),
        ((1e-2, 4e-2, 4e-2, 1e-2), "1e-2 (GenEval, OCR 0.04)"),
        ((1e-2, 4e-3, 1e-2, 10.0), "1e-2 (GenEval 4e-3; pixels 10)"),
        ((True,), "yes"),
    ],
)
def test_values_of_several_kinds_are_written_together(values, text):
    assert together(values) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8.1e-4, "8.1e-4"),
        (2e-6, "2e-6"),
        (1e-2, "1e-2"),
        (0.3, "0.3"),
        (4.3152134639895925, "4.3152"),
        (1e6, "1e6"),
        (64.0, "64"),
        (0.0, "0"),
        (True, "yes"),
        (None, "–"),
        ("own", "own"),
        ((6, 6, 8, 10), "6, 6, 8, 10"),
        (tuple(20 if step % 10 == 0 else 0 for step in range(41)), "20 at 0, 10, 20, 30, 40"),
        ((6,) * 9, "6 at 0 to 8"),
        ((0, 16), "16 at 1"),
        ((8, 8), "8 at 0, 1"),
        (("to_q", "to_k", "to_v", "to_out.0", "conv1"), "attention + conv1"),
    ],
)
def test_values_are_written_readably(value, text):
    assert written(value) == text


def test_values_are_the_same_whatever_their_form():
    assert same(8e-5 * 0.5 * 4.5**2, 8.1e-4) and same((8, 8), (8, 8, 0, 0)) and same(("b", "a"), ("a", "b"))
    assert not same((8, 8), (0, 8, 8)) and not same(1e-4, 2e-4) and not same("own", "shared")
