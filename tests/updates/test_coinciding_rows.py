"""Rows that are one update under two names, as docs/METHODS.md says of them."""

import pytest

from tests.updates.recording import Recording, relative

ONE_UPDATE = {"updates_per_rollout": 1, "advantage_std": "group"}
BETA = 0.3


def first_gradient(method, family, **settings):
    recording = Recording(method, family, **(ONE_UPDATE | {"kl_weight": BETA} | settings))
    return recording.rollouts[0].updates[0].gradient


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_ram_is_awms_plain_matching_over_the_kl_strength(family):
    """β·∇‖o − (o_ref + (Â/β)(u − o_old))‖² = ∇(Â‖o − u‖² + β‖o − o_ref‖²) while o is o_old."""
    drawn = {"forward_levels": "uniform", "forward_draws": 3}
    ram = first_gradient("ram", family, old_decay_max=0.0, **drawn)
    plain = ("branching=none", "weight=forward_one", "kl_scale=output", "drops_silent=none")
    assert relative(BETA * ram, first_gradient("custom", family, row=plain, **drawn)) < 1e-6


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_reinforce_is_grpo_while_nothing_is_clipped(family):
    grpo = first_gradient("grpo", family, kl_scale="transition")
    assert relative(first_gradient("reinforce_kl", family), grpo) < 1e-6
