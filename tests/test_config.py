"""Settings: reading loose values, refusing wrong ones all together, and the tables behind them."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.coercion import coerce, from_mapping, parse_assignments, problems
from trainers.config import FIELDS, RunConfig, field_help
from trainers.errors import InputError
from trainers.methods import METHODS, check_fit, fitting_methods, misfit
from trainers.models import MODELS
from trainers.presets import (
    PAIRS,
    PIXEL_KL,
    PIXEL_REWARDS,
    build_config,
    changed_settings,
    default_config,
    preset,
)
from trainers.rewards import REWARDS


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert caught.value.exit_code == 2
    return caught.value.problems


def build(**values):
    model, estimator, reward = (
        values.pop(key, getattr(RunConfig, key)) for key in ("model", "estimator", "reward")
    )
    return build_config(model, estimator, reward, values)


NUMBERS = [
    name
    for name, info in FIELDS.items()
    if info.metadata["low"] is not None and not isinstance(info.default, tuple) and info.default is not None
]


# -- reading values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rollout_steps", "10", 10),
        ("rollout_steps", " 10 ", 10),
        ("rollout_steps", "1e1", 10),
        ("rollout_steps", 10.0, 10),
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", 1, 1.0),
        ("guidance_scale", "", None),
        ("guidance_scale", "none", None),
        ("guidance_scale", None, None),
        ("guidance_scale", "4.5", 4.5),
        ("branches", "6,6,8,10", (6, 6, 8, 10)),
        ("branches", "6, 0, 8,", (6, 0, 8)),
        ("branches", [4, 0, 2], (4, 0, 2)),
        ("branches", "8", (8,)),
        ("prompts", "a file.txt", "a file.txt"),
    ],
)
def test_text_and_json_become_the_fields_type(name, value, expected):
    got = coerce(name, value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("rollout_steps", "ten", "a whole number"),
        ("rollout_steps", "2.5", "a whole number"),
        ("rollout_steps", 2.5, "a whole number"),
        ("rollout_steps", True, "a whole number"),
        ("rollout_steps", "", "a whole number"),
        ("rollout_steps", None, "a whole number"),
        ("rollout_steps", "inf", "a whole number"),
        ("rollout_steps", "nan", "a whole number"),
        ("rollout_steps", 10**400, "a whole number"),
        ("rollout_steps", [1], "a whole number"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", True, "a number"),
        ("learning_rate", None, "a number"),
        ("guidance_scale", "high", "a number or empty"),
        ("branches", "6,x", "whole numbers separated by commas"),
        ("branches", 6, "whole numbers separated by commas"),
        ("branches", "6;6", "whole numbers separated by commas"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_name_and_type(name, value, kind):
    (sentence,) = refused(coerce, name, value)
    assert sentence == f"'{name}' must be {kind}, not {value!r}."


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(FIELDS)),
    st.one_of(
        st.text(max_size=12),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.none(),
        st.lists(st.one_of(st.integers(), st.text(max_size=3), st.none()), max_size=4),
        st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    ),
)
def test_any_value_is_either_read_or_refused_in_sentences(name, value):
    try:
        config = from_mapping({name: value})
    except InputError as error:
        assert error.problems
        assert all(sentence.endswith(".") for sentence in error.problems)
    else:
        assert problems(config) == []
        json.loads(config.to_json())


def test_an_unknown_setting_names_the_nearest_and_all_valid_ones():
    (sentence,) = refused(coerce, "learnin_rate", 1)
    assert "Unknown setting 'learnin_rate'. Did you mean 'learning_rate'?" in sentence
    assert all(name in sentence for name in FIELDS)


def test_a_config_survives_json():
    config = RunConfig(branches=(6, 0, 8), guidance_scale=None, learning_rate=3e-4, seed=7)
    assert from_mapping(json.loads(config.to_json())) == config


# -- ranges ------------------------------------------------------------------------------------------


def test_the_defaults_are_valid():
    assert problems(RunConfig()) == []


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_is_held_to_its_range(name):
    low, high = FIELDS[name].metadata["low"], FIELDS[name].metadata["high"]
    whole = isinstance(FIELDS[name].default, int)
    outside = (low - 1, high + 1) if whole else (low - 1e-9 - abs(low) / 100, high * 1.01, math.nan, math.inf)
    for value in outside:
        found = problems(dataclasses.replace(RunConfig(), **{name: value}))
        assert any(f"'{name}' must be between" in sentence for sentence in found), value
    for value in (low, high):
        found = problems(dataclasses.replace(RunConfig(), **{name: value}))
        assert not any(f"'{name}' must" in sentence for sentence in found), value


@pytest.mark.parametrize(("name", "value"), [("seed", 2**31), ("seed", -1), ("rollout_steps", 201)])
def test_a_range_is_written_so_that_the_value_is_seen_to_be_outside(name, value):
    """The sentence must show the bounds and the value as they are, not rounded to the same text."""
    (sentence,) = problems(dataclasses.replace(RunConfig(), **{name: value}))
    low, high = FIELDS[name].metadata["low"], FIELDS[name].metadata["high"]
    assert sentence == f"'{name}' must be between {low} and {high}, not {value}."


@pytest.mark.parametrize("name", [n for n, info in FIELDS.items() if info.metadata["choices"]])
def test_a_choice_lists_the_valid_ones(name):
    (sentence,) = problems(dataclasses.replace(RunConfig(), **{name: "other"}))
    assert all(choice in sentence for choice in FIELDS[name].metadata["choices"])
    assert "'other'" in sentence


@pytest.mark.parametrize(
    ("branches", "said"),
    [
        ((1, 4), "at step 0"),
        ((4, 0, 1), "at step 2"),
        ((-4, 4), "between 0 and 256"),
        ((4, 257), "between 0 and 256"),
    ],
)
def test_branches_that_cannot_be_compared_are_refused(branches, said):
    found = problems(RunConfig(branches=branches, rollout_steps=8))
    assert any(said in sentence for sentence in found)


@pytest.mark.parametrize("guidance", [-1.0, 51.0, math.nan])
def test_guidance_is_held_to_its_range(guidance):
    (sentence,) = problems(RunConfig(guidance_scale=guidance))
    assert "'guidance_scale' must be between 0 and 50" in sentence


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "", "5", "cuda:-1", "CPU"])
def test_an_unknown_device_is_refused(device):
    (sentence,) = problems(RunConfig(device=device))
    assert sentence == f"'device' must be auto, cpu, cuda or cuda:N, not '{device}'."


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_a_known_device_is_accepted(device):
    assert problems(RunConfig(device=device)) == []


def test_every_problem_is_reported_at_once():
    found = refused(
        from_mapping,
        {
            "rollout_steps": "many",
            "learning_rate": "-1",
            "noise_lvl": 0.7,
            "advantage": "best",
            "branches": "1,1",
            "dtype": "int8",
        },
    )
    told = "\n".join(found)
    for part in ("rollout_steps", "learning_rate", "noise_lvl", "best", "at step 0", "at step 1", "int8"):
        assert part in told
    assert len(found) == len(set(found)) == 7


def test_assignments_are_split_at_the_first_sign():
    assert parse_assignments(["a=1", "prompts=x=y.txt", "b="]) == {"a": "1", "prompts": "x=y.txt", "b": ""}
    assert parse_assignments([]) == {}
    found = refused(parse_assignments, ["a", "b=1", "c"])
    assert found == ("'a' is not of the form key=value.", "'c' is not of the form key=value.")


def test_every_field_is_explained_and_placed():
    for name, info in FIELDS.items():
        assert field_help(name).endswith(".")
        assert info.metadata["group"]


# -- presets and combinations ------------------------------------------------------------------------


def test_every_default_combination_that_fits_is_valid():
    for model in MODELS.specs():
        for differentiable in (True, False):
            reward = "brightness" if differentiable else "shapes"
            for estimator in fitting_methods(model.family, differentiable):
                config = build_config(model.name, estimator, reward, {})
                assert config == default_config(model.name, estimator, reward)
                assert changed_settings(config) == {}


def test_later_layers_win_and_a_person_wins_over_all():
    for model in MODELS.names():
        for estimator in METHODS.names():
            merged = preset(model, estimator, "shapes")
            for key, value in PAIRS.get((model, estimator), {}).items():
                assert merged[key] == value
            method, family = METHODS.get(estimator), MODELS.get(model).pairs.get(estimator, {})
            pair = dict(family) | dict(PAIRS.get((model, estimator), {}))
            for key, value in (dict(method.defaults) | dict(method.compositional)).items():
                assert merged[key] == pair.get(key, value)
    config = build(learning_rate="2e-4", seed="3")
    assert (config.learning_rate, config.seed) == (2e-4, 3)
    assert changed_settings(config) == {"learning_rate": 2e-4, "seed": 3}


@pytest.mark.parametrize(("model", "estimator"), PIXEL_KL)
def test_statistics_of_pixels_are_held_more_strongly_unless_another_reward_is_mixed_in(model, estimator):
    assert set(REWARDS.names()) >= PIXEL_REWARDS
    for reward in (*PIXEL_REWARDS, "brightness:1, contrast:-0.5"):
        changed = {"kl_weight": PIXEL_KL[model, estimator]}
        assert preset(model, estimator, reward) == preset(model, estimator, "tiny_clip") | changed
    plain = preset(model, estimator, "shapes")
    assert preset(model, estimator, "brightness:1,shapes:1") == plain
    assert plain["kl_weight"] < PIXEL_KL[model, estimator]


def test_statistics_of_pixels_change_no_other_row():
    for model in ("tiny-flow", "tiny-diffusion"):
        for estimator in METHODS.names():
            if (model, estimator) not in PIXEL_KL:
                assert preset(model, estimator, "colorfulness") == preset(model, estimator, "tiny_clip")


def test_rewards_that_check_a_caption_or_read_a_text_take_the_published_settings_for_them():
    for name, kind in (("geneval", "compositional"), ("shapes_exact", "compositional"), ("ocr", "ocr")):
        for method in METHODS:
            merged, usual = (preset("sd35-medium", method.name, reward) for reward in (name, "aesthetic"))
            own = {key: value for key, value in merged.items() if value != usual.get(key)}
            assert own.keys() - {"prompts", "heldout_prompts"} == getattr(method, kind).keys()
            assert merged == merged | dict(getattr(method, kind))


def test_presets_only_name_settings():
    for table in (
        *PAIRS.values(),
        *(m.defaults for m in METHODS),
        *(m.compositional for m in METHODS),
        *(m.ocr for m in METHODS),
        *(m.defaults for m in MODELS),
        *(pair for m in MODELS for pair in m.pairs.values()),
    ):
        assert set(table) <= set(FIELDS)


def test_every_wrong_name_and_number_of_a_run_is_told_together():
    found = refused(
        build_config,
        "tiny-flw",
        "grpoo",
        "shaeps:1,tiny_clip:x",
        {"rollout_steps": 201, "lora_rnk": 4, "seed": "x"},
    )
    told = "\n".join(found)
    assert "Unknown model 'tiny-flw'. Did you mean 'tiny-flow'?" in told
    assert "Unknown estimator 'grpoo'. Did you mean 'grpo'?" in told
    assert "Unknown reward 'shaeps'. Did you mean 'shapes'?" in told
    assert "The weight 'x' of 'tiny_clip'" in told
    assert "Unknown setting 'lora_rnk'. Did you mean 'lora_rank'?" in told
    assert "'seed' must be a whole number" in told
    assert "'rollout_steps' must be between 2 and 200, not 201." in told
    assert len(found) == len(set(found)) == 7
    assert all(name in told for name in (*MODELS.names(), *METHODS.names(), *REWARDS.names()))


def test_a_model_may_be_named_among_the_values():
    config = build_config(
        "tiny-flow", "grpo", "shapes", {"model": "tiny-diffusion", "estimator": "rsm_zeroth_order_diffusion"}
    )
    assert (config.model, config.estimator) == ("tiny-diffusion", "rsm_zeroth_order_diffusion")
    assert (
        config.rollout_steps
        == default_config(*dataclasses.astuple(config)[:1], config.estimator, "shapes").rollout_steps
    )


# -- what fits what ----------------------------------------------------------------------------------

FAMILIES = {
    "rsm_zeroth_order_flow": {"flow"},
    "rsm_first_order_flow": {"flow"},
    "grpo": {"flow", "diffusion"},
    "rsm_zeroth_order_diffusion": {"diffusion"},
    "rsm_first_order_diffusion": {"diffusion"},
}
GRADIENTS = {"rsm_first_order_flow", "rsm_first_order_diffusion"}


@pytest.mark.parametrize("family", ["flow", "diffusion"])
@pytest.mark.parametrize("differentiable", [True, False])
def test_the_five_methods_fit_what_they_are_defined_for(family, differentiable):
    valid = {
        name
        for name, families in FAMILIES.items()
        if family in families and (differentiable or name not in GRADIENTS)
    }
    assert set(FAMILIES) <= set(METHODS.names())
    assert set(fitting_methods(family, differentiable)) & set(FAMILIES) == valid
    for name in FAMILIES:
        found = misfit(METHODS.get(name), family, differentiable)
        assert (found == []) == (name in valid)
        for sentence in found:
            assert f"'{name}'" in sentence
            assert f"Methods that fit: {', '.join(fitting_methods(family, differentiable))}." in sentence
        if found:
            assert refused(check_fit, METHODS.get(name), family, differentiable) == tuple(found)
        else:
            check_fit(METHODS.get(name), family, differentiable)


def test_a_method_wrong_in_two_ways_says_both():
    found = misfit(METHODS.get("rsm_first_order_diffusion"), "flow", False)
    assert len(found) == 2
    assert "diffusion models" in found[0]
    assert "black box" in found[1]


@pytest.mark.parametrize(
    ("model", "estimator", "reward", "said"),
    [
        ("tiny-flow", "rsm_first_order_flow", "shapes", "black box"),
        ("tiny-flow", "rsm_first_order_flow", "tiny_clip:1,shapes:0.1", "black box"),
        ("tiny-diffusion", "rsm_zeroth_order_flow", "shapes", "diffusion model"),
        ("tiny-flow", "rsm_zeroth_order_diffusion", "brightness", "flow model"),
    ],
)
def test_combinations_that_do_not_fit_are_refused_before_anything_loads(model, estimator, reward, said):
    (sentence,) = refused(build_config, model, estimator, reward, {})
    assert said in sentence
    assert "Methods that fit:" in sentence


def test_every_method_is_described_and_its_words_are_known():
    for method in METHODS.specs():
        assert method.title
        assert method.summary.endswith(".")
        assert method.origin
        assert set(method.families) <= {"flow", "diffusion"}
        assert method.order in ("zeroth", "first")
