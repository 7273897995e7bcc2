"""The gradient that the optimizer is given is that of the whole published update, for every zeroth-order row.

Every expected gradient is derived in float64 from the states and noises of the rollout by the formulas of
``published_zeroth``; what is left of a difference are the float32 numbers of the initial noise.
"""

from functools import lru_cache
from itertools import pairwise

import pytest
import torch

from tests.estimators.toy_model import WORDS, Smooth
from tests.updates.derived_zeroth import Derivation, published
from tests.updates.recording import Recording, relative

TOLERANCE = 1e-6
HOMES = [
    ("rsm_zeroth_order_flow", "flow"),
    ("rsm_zeroth_order_diffusion", "diffusion"),
    ("grpo", "flow"),
    ("grpo", "diffusion"),
    ("tempflow_grpo", "flow"),
    ("branch_grpo", "flow"),
    ("branch_grpo", "diffusion"),
    ("grpo_guard", "flow"),
    ("pcpo", "diffusion"),
    ("pcpo_flow", "flow"),
    ("ppo", "flow"),
    ("ppo", "diffusion"),
    ("reinforce_kl", "flow"),
    ("reinforce_kl", "diffusion"),
]
WITHOUT_KL = ("branch_grpo", "grpo_guard", "pcpo", "ppo")
SETTINGS = {"branches": (3, 0, 2)}
# So many samples that a prompt of both rollouts is compared with its own past in the second.
SEEN_TWICE = {"group_size": 8}
every_row = pytest.mark.parametrize(("method", "family"), HOMES)


def settings_of(method):
    held = {} if method in WITHOUT_KL else {"kl_weight": 0.3}
    return SETTINGS | held | (SEEN_TWICE if method == "ppo" else {})


@lru_cache
def two_rollouts(method, family):
    """A recording and the gradients derived from it."""
    recording = Recording(method, family, 2, **settings_of(method))
    return recording, Derivation(recording, published(method, family)).gradients()


def given(recording):
    return [update.gradient for rollout in recording.rollouts for update in rollout.updates]


def assert_equal(recording, expected):
    pairs = list(zip(given(recording), expected, strict=True))
    errors = [(float((got - wanted).norm()), float(wanted.norm())) for got, wanted in pairs]
    assert all(error <= TOLERANCE * size for error, size in errors), errors


def check(method, family, rollouts=1, reward=None, changed=None, **settings):
    """Record with these settings and compare; returns the recording and its derivation."""
    recording = Recording(method, family, rollouts, reward=reward, **(settings_of(method) | settings))
    derivation = Derivation(recording, published(method, family), **(changed or {}))
    assert_equal(recording, derivation.gradients())
    return recording, derivation


def ignored(recording, method, family, **changed):
    """How far the gradients would be off if the derivation were changed, update by update."""
    others = Derivation(recording, published(method, family), **changed).gradients()
    return [relative(*pair) for pair in zip(others, given(recording), strict=True)]


# -- the rows as they are -----------------------------------------------------------------------------


@every_row
def test_the_updates_of_two_rollouts_are_the_published_ones(method, family):
    recording, expected = two_rollouts(method, family)
    assert_equal(recording, expected)
    assert len(expected) == (2 if method == "reinforce_kl" else 4)
    assert all(float(gradient.norm()) > 0 for gradient in expected)


@every_row
def test_the_trust_region_acts_in_the_second_update_of_a_rollout(method, family):
    recording, _ = two_rollouts(method, family)
    if method == "reinforce_kl":  # nothing clips it, and there is one update a rollout
        return
    for rollout in recording.rollouts:
        first, second = (update.metrics.clip_fraction for update in rollout.updates)
        assert first == 0 and 0.1 < second < 0.9


@every_row
def test_a_rollout_is_split_into_equal_updates_at_random(method, family):
    recording, _ = two_rollouts(method, family)
    for rollout in recording.rollouts:
        for turns in rollout.turns:
            sizes = [int((turns == number).sum()) for number in range(len(rollout.updates))]
            assert max(sizes) - min(sizes) <= 1
    if method != "reinforce_kl":
        first = recording.rollouts[0].turns[0]
        assert not torch.equal(first, first.sort().values)
        assert not torch.equal(first, recording.rollouts[1].turns[0])


@every_row
def test_micro_batches_do_not_change_the_update(method, family):
    _, expected = two_rollouts(method, family)
    assert_equal(Recording(method, family, 2, micro_batch=3, **settings_of(method)), expected)


@every_row
def test_two_processes_have_the_update_of_one(method, family):
    _, expected = two_rollouts(method, family)
    assert_equal(Recording(method, family, 2, processes=2, **settings_of(method)), expected)


@pytest.mark.parametrize("method", ["grpo", "rsm_zeroth_order_flow", "branch_grpo"])
def test_three_unequal_updates_and_three_roots(method):
    check(method, "flow", updates_per_rollout=3, roots_per_prompt=3, branches=(2, 3, 0, 1), group_size=5)


# -- groups without a difference ----------------------------------------------------------------------


class Dull(Smooth):
    """The smooth reward in steps of ½, and the same for all pictures of two prompts."""

    def __call__(self, images, prompts, metadata=None):
        steps = (2 * super().__call__(images, prompts)).round() / 2
        muted = torch.tensor([word in WORDS[1:3] for word in prompts])
        return torch.where(muted, 0.3, steps)


@pytest.mark.parametrize(("method", "family"), [home for home in HOMES if home[0] != "ppo"])
def test_silent_groups_leave_the_mean_where_the_row_drops_them(method, family):
    recording, derivation = check(method, family, reward=Dull())
    advantages = torch.cat([part.advantages.flatten() for part in derivation.parts[0]])
    assert 0.1 < (advantages == 0).double().mean() < 0.9
    assert max(ignored(recording, method, family, drops=not derivation.published.drops)) > 1e-2


@pytest.mark.parametrize("method", ["grpo", "grpo_guard", "pcpo_flow", "tempflow_grpo"])
def test_silent_trajectories_and_paths_leave_before_the_split(method):
    """As in Flow-GRPO's program, so that each update has as many of the others."""
    recording, derivation = check(method, "flow", reward=Dull(), branches=(3, 3))
    speak = torch.stack([part.advantages != 0 for part in derivation.parts[0]]).any(0)
    assert 0 < int(speak.sum()) < speak.numel()
    assert len(recording.rollouts[0].turns[0]) == int(speak.sum())


@pytest.mark.parametrize("method", ["grpo", "rsm_zeroth_order_flow"])
def test_an_update_of_silent_groups_alone_is_held_near_the_base_model(method):
    recording, derivation = check(method, "flow", reward=Dull(), updates_per_rollout=16)
    assert 0 in speaking(derivation, recording.rollouts[0])


def speaking(derivation, rollout):
    """How many branches with an advantage each update has."""
    turns = torch.cat([part.turns[part.advantages != 0] for part in derivation.parts[0]])
    return [int((turns == number).sum()) for number in range(len(rollout.updates))]


# -- statistics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_ppo_compares_a_prompt_with_its_own_past_once_it_was_seen_often(family):
    recording, _ = two_rollouts("ppo", family)
    met = Derivation(recording, published("ppo", family)).tracker.met
    assert met["own"] == 3 and met["batch"] == 5


def test_ppo_remembers_the_latest_rewards_only():
    _, derivation = check("ppo", "flow", rollouts=2, group_size=12, history_size=18)
    assert derivation.tracker.met["own"] > 0


def test_ppo_knows_a_prompt_that_a_rollout_has_twice():
    recording, _ = check("ppo", "flow", rollouts=2, group_size=4, seed=4)
    assert len(recording.rollouts[1].chosen.unique()) < 4


class Steep(Smooth):
    """Few pictures are worth much."""

    def __call__(self, images, prompts, metadata=None):
        return super().__call__(images, prompts).sub(7).mul(6).exp()


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_advantages_are_clamped_at_five(method):
    _, derivation = check(method, "flow", reward=Steep(), group_size=32)
    assert max(float(part.advantages.max()) for part in derivation.parts[0]) == 5.0


@pytest.mark.parametrize("kind", ["mean", "raw", "tilted"])
def test_other_advantages(kind):
    check("grpo", "flow", advantage=kind, tilt=0.4)


@pytest.mark.parametrize(
    ("method", "std"), [("grpo", "group"), ("pcpo_flow", "group"), ("rsm_zeroth_order_flow", "rollout")]
)
def test_the_standard_deviation_is_that_of_the_groups_or_of_the_rollout(method, std):
    recording, _ = check(method, "flow", changed={"spread": std}, advantage_std=std)
    other = {"group": "rollout", "rollout": "group"}[std]
    assert max(ignored(recording, method, "flow", spread=other)) > 1e-2


# -- the pull towards the base model ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "family", "scale"),
    [
        ("grpo", "flow", "transition"),
        ("grpo", "flow", "output"),
        ("pcpo_flow", "flow", "transition"),
        ("tempflow_grpo", "flow", "rate"),
        ("branch_grpo", "diffusion", "transition"),
        ("ppo", "flow", "rate"),
    ],
)
def test_what_the_kl_weight_multiplies(method, family, scale):
    recording, _ = check(method, family, changed={"held": scale}, kl_scale=scale, kl_weight=1.0)
    assert max(ignored(recording, method, family, held="none")) > 1e-2


@pytest.mark.parametrize("fraction", [0.175, 1.0])
def test_anchors_of_the_flow_row_for_compositional_rewards(fraction):
    changed = {"held": "transition"}
    settings = {"kl_scale": "transition", "anchor_fraction": fraction, "kl_weight": 1.0}
    recording, _ = check("rsm_zeroth_order_flow", "flow", 2, changed=changed, **settings)
    assert all(len(rollout.turns[1]) == (7 if fraction < 1 else 16) for rollout in recording.rollouts)
    without = ignored(recording, "rsm_zeroth_order_flow", "flow", held="transition", anchors="none")
    assert max(without) > 1e-2


@pytest.mark.parametrize("other", [{"micro_batch": 3}, {"processes": 2}])
@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_anchors_in_small_micro_batches_and_in_two_processes(family, other):
    method, settings = f"rsm_zeroth_order_{family}", {"anchor_fraction": 1.0, "kl_weight": 1.0}
    changed = {"held": "transition"} if family == "flow" else {}
    if family == "flow":
        settings["kl_scale"] = "transition"
    _, derivation = check(method, family, 2, changed=changed, **settings)
    another = Recording(method, family, 2, **(settings_of(method) | settings | other))
    assert_equal(another, derivation.gradients())


@pytest.mark.parametrize("fraction", [0.1, 0.175, 1.0])
def test_anchors_of_the_diffusion_row(fraction):
    settings = {"anchor_fraction": fraction, "kl_weight": 1.0}
    recording, _ = check("rsm_zeroth_order_diffusion", "diffusion", 2, **settings)
    counts = {0.1: 4, 0.175: 7, 1.0: 16}
    assert all(len(rollout.turns[1]) == counts[fraction] for rollout in recording.rollouts)
    assert max(ignored(recording, "rsm_zeroth_order_diffusion", "diffusion", anchors="none")) > 1e-2


def test_the_published_interval_weight():
    check("pcpo_flow", "flow", interval_weight=4.3152134639895925)


# -- rows that coincide -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_reinforce_with_kl_is_grpo_with_one_update_a_rollout(family):
    same = {"advantage_std": "group", "updates_per_rollout": 1, "kl_scale": "transition", "kl_weight": 0.3}
    reinforce = Recording("reinforce_kl", family, 2, **same)
    grpo = Recording("grpo", family, 2, **same)
    for pair in zip(given(reinforce), given(grpo), strict=True):
        assert relative(*pair) <= TOLERANCE
    assert all(relative(*pair) > 1e-2 for pair in pairwise(given(grpo)))
