"""Branches that nobody gave follow the number of rollout steps; those that somebody gave are checked."""

import pytest

from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.methods import METHODS, fitting_methods
from trainers.models import MODELS
from trainers.presets import build_config, preset

BRANCHING = [
    (model, row)
    for model in ("tiny-flow", "tiny-diffusion", "sd15", "sdxl", "sd35-medium", "pixart-sigma")
    for row in fitting_methods(MODELS.get(model).family, differentiable=True)
    if METHODS.get(row).branching in ("tree", "per_step")
]


@pytest.mark.parametrize(("model", "row"), BRANCHING)
@pytest.mark.parametrize("steps", [2, 3, 4, 20])
def test_fewer_steps_are_never_refused_over_branches_that_nobody_gave(model, row, steps):
    base = preset(model, row, "brightness")
    was, before = base.get("branches", RunConfig.branches), base.get("rollout_steps", RunConfig.rollout_steps)
    config = build_config(model, row, "brightness", {"rollout_steps": steps})
    assert len(config.branches) <= steps and max(config.branches) == max(was)
    if steps >= before:
        assert config.branches == was
    elif len(was) < before:
        assert len(config.branches) < steps, "the last step, where nothing is drawn, has none"
    # What the page sends, all settings with the defaults among them, means the same.
    sent = {"rollout_steps": steps, "branches": was}
    assert build_config(model, row, "brightness", sent, every_field=True) == config
    if len(was) <= steps:
        assert build_config(model, row, "brightness", sent).branches == was, "somebody gave them"


def test_a_pattern_keeps_its_part_of_the_rollout():
    half = build_config("tiny-diffusion", "rsm_zeroth_order_diffusion", "brightness", {"rollout_steps": 4})
    assert preset("tiny-diffusion", "rsm_zeroth_order_diffusion", "brightness")["branches"] == (0, 0, 16)
    assert half.branches == (0, 16)


@pytest.mark.parametrize("row", ["ppo", "grpo", "awm", "diffusion_nft", "vgg_flow"])
def test_methods_without_branches_read_none(row):
    config = build_config("sd15", row, "brightness", {"rollout_steps": 3, "branches": (2,) * 9})
    assert config.rollout_steps == 3


@pytest.mark.parametrize(
    ("branches", "said"),
    [
        ((0, 16, 0, 0, 0, 0, 0, 0, 0), "lists 9 steps but a rollout has 8"),
        ((4,) * 9, "lists 9 steps but a rollout has 8"),
        ((0, 0), "at least one step with 2 or more"),
        ((), "at least one step with 2 or more"),
    ],
)
def test_branches_that_somebody_gave_are_checked(branches, said):
    with pytest.raises(InputError, match=said):
        build_config(
            "tiny-flow", "rsm_zeroth_order_flow", "brightness", {"rollout_steps": 8, "branches": branches}
        )
