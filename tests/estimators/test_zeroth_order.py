"""Zeroth-order rollouts: every noise and advantage must sit in the row it came from.

Leaves are finished again here, one at a time, from a row's own state and noise; their rewards give the
expected advantages.
"""

import pytest
import torch

from tests.core.toys import randn
from tests.estimators.toy_model import WORDS, Constant, Smooth, task_of
from tests.samplers.published import STEPS, diffusion_ode_step, flow_ode_step, stochastic_step
from trainers.config import RunConfig
from trainers.estimators.contract import EstimatorState, StepRows
from trainers.estimators.zeroth_order import ZerothOrder, training_steps
from trainers.methods import METHODS
from trainers.rewards.contract import Reward

NOISE = 0.7
ODE = {"flow": flow_ode_step, "diffusion": diffusion_ode_step}
BRANCHING = [("rsm_zeroth_order_flow", "flow"), ("rsm_zeroth_order_diffusion", "diffusion")]


def estimator(method, **settings):
    settings = {"noise_level": NOISE, "advantage_clamp": 100.0, "branches": (3, 0, 4)} | settings
    return ZerothOrder(METHODS.get(method), RunConfig(**settings))


def output(task, latents, step, prompt):
    conditions = task.conditions.select(torch.tensor([prompt]))
    return task.policy.sample_output(latents[None], task.schedule, step, conditions)[0]


def finish(task, family, state, step, prompt):
    """Run the deterministic sampler on one sample from a step to the end."""
    for later in range(step, STEPS):
        state = ODE[family](later, state, output(task, state, later, prompt))[0]
    return state


def reward_of(task, latents, prompt):
    picture = task.policy.model.decode(latents[None])
    return float(Smooth()(picture, [task.prompts[prompt]]))


def normalised(rewards):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    return (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-4)


@pytest.mark.parametrize(("method", "family"), BRANCHING)
@pytest.mark.parametrize("roots", [1, 2])
def test_branches_carry_their_own_noise_and_advantage(method, family, roots):
    task = task_of(family)
    rollout = estimator(method, roots_per_prompt=roots, kl_weight=0.0).collect(task)
    assert [rows.step for rows in rollout.rows] == [0, 2]
    assert [rows.noise.shape[:2] for rows in rollout.rows] == [(3 * roots, 3), (3 * roots, 4)]
    expected_rewards = []
    for rows in rollout.rows:
        assert rows.prompt_index.tolist() == [prompt for prompt in range(3) for _ in range(roots)]
        for row, prompt in enumerate(rows.prompt_index.tolist()):
            parent = rows.latents[row]
            velocity = output(task, parent, rows.step, prompt)
            rewards = []
            for noise in rows.noise[row]:
                center, std = stochastic_step(family)(rows.step, parent, velocity, NOISE)
                leaf = finish(task, family, center + std * noise, rows.step + 1, prompt)
                rewards.append(reward_of(task, leaf, prompt))
            torch.testing.assert_close(
                rows.advantages[row].double(), normalised(rewards), rtol=0.02, atol=0.005
            )
            expected_rewards += rewards
    torch.testing.assert_close(
        rollout.rewards.double(), torch.tensor(expected_rewards).double(), rtol=1e-5, atol=1e-6
    )
    assert rollout.images_sampled == len(rollout.rewards) == 3 * roots * 7
    assert rollout.zero_spread_groups == 0


@pytest.mark.parametrize(
    ("method", "family", "last"), [("ppo", "flow", STEPS), ("ppo", "diffusion", STEPS - 1)]
)
def test_the_last_step_is_trained_where_the_row_wants_it_and_it_has_noise(method, family, last):
    rollout = estimator(method, group_size=2).collect(task_of(family))
    assert [rows.step for rows in rollout.rows] == list(range(last))
    other = estimator("grpo", group_size=2).collect(task_of(family))
    skipped = estimator(method, group_size=2, last_step="skip").collect(task_of(family))
    for rollout in (other, skipped):
        assert [rows.step for rows in rollout.rows] == list(range(STEPS - 1))


def test_trajectories_are_numbered_and_branches_are_not():
    for rows in estimator("grpo", group_size=4).collect(task_of()).rows:
        assert rows.sample.tolist() == list(range(12))
    for rows in estimator("rsm_zeroth_order_flow").collect(task_of()).rows:
        assert rows.sample is None


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_a_trajectory_row_carries_the_noise_of_its_own_step(family):
    task = task_of(family)
    rollout = estimator("grpo", group_size=4).collect(task)
    assert [rows.step for rows in rollout.rows] == list(range(STEPS - 1))
    first = rollout.rows[0]
    assert first.prompt_index.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for here, there in zip(rollout.rows, rollout.rows[1:], strict=False):
        assert here.noise.shape == (12, 1, 2, 4, 4)
        for row, prompt in enumerate(here.prompt_index.tolist()):
            velocity = output(task, here.latents[row], here.step, prompt)
            center, std = stochastic_step(family)(here.step, here.latents[row], velocity, NOISE)
            sample = (center + std * here.noise[row, 0]).double()
            torch.testing.assert_close(sample, there.latents[row].double(), rtol=1e-5, atol=1e-4)
    for group in range(3):
        expected = normalised(rollout.rewards[4 * group : 4 * group + 4].tolist())
        for rows in rollout.rows:
            got = rows.advantages[4 * group : 4 * group + 4, 0].double()
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_trajectory_rewards_belong_to_their_samples():
    """DDIM's last step adds no noise, so the finished samples follow from the last row by one more step."""
    task = task_of("diffusion")
    rollout = estimator("grpo", group_size=4).collect(task)
    last = rollout.rows[-1]
    for row, prompt in enumerate(last.prompt_index.tolist()):
        velocity = output(task, last.latents[row], last.step, prompt)
        center, std = stochastic_step("diffusion")(last.step, last.latents[row], velocity, NOISE)
        leaf = finish(task, "diffusion", center + std * last.noise[row, 0], STEPS - 1, prompt)
        assert float(rollout.rewards[row]) == pytest.approx(reward_of(task, leaf, prompt), rel=1e-5)


class Favourite(Reward):
    """1 for one picture of the batch, counted over all calls, and 0 for the others."""

    def __init__(self, number):
        self.number, self.seen = number, 0

    def __call__(self, images, prompts, metadata=None):
        numbers = torch.arange(self.seen, self.seen + len(images))
        self.seen += len(images)
        return (numbers == self.number).float()


@pytest.mark.parametrize("micro_batch", [5, 128])
@pytest.mark.parametrize(
    ("leaf", "step", "row", "branch"), [(0, 0, 0, 0), (7, 0, 2, 1), (9, 2, 0, 0), (18, 2, 2, 1)]
)
def test_the_reward_of_one_leaf_changes_its_own_row_alone(leaf, step, row, branch, micro_batch):
    task = task_of(reward=Favourite(leaf), micro_batch=micro_batch)
    rollout = estimator("rsm_zeroth_order_flow", kl_weight=0.0).collect(task)
    for rows in rollout.rows:
        for number in range(len(rows.latents)):
            if (rows.step, number) == (step, row):
                assert int(rows.advantages[number].argmax()) == branch
                assert float(rows.advantages[number, branch]) > 1.0
            else:
                assert not rows.advantages[number].any()
    assert rollout.zero_spread_groups == 5


def test_pictures_are_scored_for_the_prompt_they_were_drawn_for():
    reward = Smooth()
    task = task_of(reward=reward, micro_batch=4)
    rollout = estimator("rsm_zeroth_order_flow", kl_weight=0.0).collect(task)
    asked = [word for _, prompts in reward.calls for word in prompts]
    assert asked == [word for count in (3, 4) for word in WORDS[:3] for _ in range(count)]
    assert max(len(prompts) for _, prompts in reward.calls) == 4
    assert len(rollout.rewards) == 21


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_the_micro_batch_does_not_change_a_rollout(micro_batch):
    for method in ("grpo", "rsm_zeroth_order_flow"):
        whole = estimator(method).collect(task_of())
        chunked = estimator(method).collect(task_of(micro_batch=micro_batch))
        torch.testing.assert_close(chunked.rewards, whole.rewards)
        for one, other in zip(chunked.rows, whole.rows, strict=True):
            torch.testing.assert_close(one.latents, other.latents)


def test_a_rollout_is_the_same_on_one_core_and_on_several(one_thread):
    """Chunks run side by side; each must still be scored for its own prompts."""
    one = estimator("rsm_zeroth_order_flow").collect(task_of(micro_batch=4))
    torch.set_num_threads(2)
    two = estimator("rsm_zeroth_order_flow").collect(task_of(micro_batch=4))
    assert torch.equal(one.rewards, two.rewards)
    assert not two.rewards.requires_grad
    for here, there in zip(one.rows, two.rows, strict=True):
        assert torch.equal(here.latents, there.latents)


@pytest.mark.parametrize("method", ["grpo", "rsm_zeroth_order_flow"])
def test_groups_without_spread_are_counted_and_silent(method):
    rollout = estimator(method, group_size=4).collect(task_of(reward=Constant()))
    assert rollout.zero_spread_groups == (3 if method == "grpo" else 6)
    for rows in rollout.rows:
        assert rows.anchor_only or not rows.advantages.any()


@pytest.mark.parametrize("kind", ["group", "mean", "raw", "tilted"])
def test_the_advantage_is_the_chosen_one(kind):
    rewards = estimator("grpo", group_size=4).collect(task_of()).rewards.view(3, 4).double()
    expected = {
        "group": (rewards - rewards.mean(1, True)) / (rewards.std(1, correction=0, keepdim=True) + 1e-4),
        "mean": rewards - rewards.mean(1, True),
        "raw": rewards,
        "tilted": 4 * (rewards / 0.05).exp() / (rewards / 0.05).exp().sum(1, True) - 1,
    }[kind]
    rollout = estimator("grpo", group_size=4, advantage=kind, tilt=0.05).collect(task_of())
    torch.testing.assert_close(rollout.rows[0].advantages.view(3, 4).double(), expected, rtol=1e-4, atol=1e-5)
    clamped = estimator("grpo", group_size=4, advantage=kind, tilt=0.05, advantage_clamp=0.01).collect(
        task_of()
    )
    assert float(clamped.rows[0].advantages.abs().max()) <= 0.0100001


class Shifted(Smooth):
    def __init__(self, scale, shift):
        self.scale, self.shift = scale, shift

    def __call__(self, images, prompts, metadata=None):
        return self.scale * super().__call__(images, prompts) + self.shift


@pytest.mark.parametrize("method", ["grpo", "rsm_zeroth_order_flow"])
@pytest.mark.parametrize(
    ("kind", "scale", "shift"), [("group", 40.0, 3.0), ("mean", 1.0, 3.0), ("tilted", 1.0, 3.0)]
)
def test_shift_and_scale_of_a_reward_do_not_matter_where_they_are_normalised(method, kind, scale, shift):
    settings = {"advantage": kind, "group_size": 4}
    plain = estimator(method, **settings).collect(task_of())
    other = estimator(method, **settings).collect(task_of(reward=Shifted(scale, shift)))
    for one, two in zip(plain.rows, other.rows, strict=True):
        if not one.anchor_only:
            torch.testing.assert_close(one.advantages, two.advantages, rtol=0.03, atol=0.003)


def states_by_hand(task, family, guided):
    """(step, root) → states of the roots' deterministic paths, on from the rows of step 0."""
    found = {}
    for root, prompt in enumerate(guided.prompt_index.tolist()):
        state = guided.latents[root]
        for step in range(1, STEPS):
            state = ODE[family](step - 1, state, output(task, state, step - 1, prompt))[0]
            found[step, root] = state
    return found


@pytest.mark.parametrize(("method", "family"), BRANCHING)
@pytest.mark.parametrize(("fraction", "count"), [(1.0, 36), (0.25, 21), (0.1, 8), (0.001, 1)])
def test_unbranched_states_but_those_of_the_last_step_give_anchor_rows(method, family, fraction, count):
    """``fraction`` of the 12 · (3 + 4) branches, of the 3 · 12 states there are, over all steps and roots."""
    task = task_of(family)
    settings = {"roots_per_prompt": 4, "kl_weight": 0.1, "anchor_fraction": fraction}
    rollout = estimator(method, **settings).collect(task)
    anchors = [rows for rows in rollout.rows if rows.anchor_only]
    assert [rows.step for rows in anchors] == [1, 3, 4]
    assert sum(len(rows.latents) for rows in anchors) == count
    guided = rollout.rows[0]
    there = states_by_hand(task, family, guided)
    for rows in anchors:
        assert rows.noise is None
        assert rows.guidance is None
        owners = []
        for state, prompt in zip(rows.latents, rows.prompt_index.tolist(), strict=True):
            apart = [float((state - there[rows.step, root]).abs().max()) for root in range(12)]
            owners.append(min(range(12), key=apart.__getitem__))
            assert apart[owners[-1]] < 1e-4
            assert int(guided.prompt_index[owners[-1]]) == prompt
        assert len(set(owners)) == len(owners), "no state holds the policy twice"


@pytest.mark.parametrize(
    "settings", [{"kl_weight": 0.0}, {"branches": (2,) * STEPS}, {"anchor_fraction": 0.0}], ids=str
)
def test_no_anchor_rows_where_none_are_asked_for(settings):
    settings = {"kl_weight": 0.1} | settings
    rollout = estimator("rsm_zeroth_order_flow", **settings).collect(task_of())
    assert not any(rows.anchor_only for rows in rollout.rows)


def test_a_sampled_share_of_anchor_rows_differs_from_rollout_to_rollout():
    settings = {"roots_per_prompt": 4, "kl_weight": 0.1, "anchor_fraction": 0.25}
    choices = set()
    for seed in range(6):
        rollout = estimator("rsm_zeroth_order_flow", **settings).collect(task_of(seed=seed))
        anchors = [rows for rows in rollout.rows if rows.anchor_only]
        choices.add(tuple((rows.step, *rows.prompt_index.tolist()) for rows in anchors))
    assert len(choices) > 2


def test_anchors_are_drawn_over_all_steps_alike():
    settings = {"roots_per_prompt": 4, "kl_weight": 0.1, "anchor_fraction": 0.1}
    counts = torch.zeros(STEPS)
    for seed in range(60):
        rollout = estimator("rsm_zeroth_order_flow", **settings).collect(task_of(seed=seed))
        for rows in rollout.rows:
            counts[rows.step] += len(rows.latents) * rows.anchor_only
    assert counts.tolist() == pytest.approx([0, 160, 0, 160, 160, 0], abs=40)


@pytest.mark.parametrize("fraction", [0.01, 0.4, 0.5, 1.0])
def test_the_train_fraction_picks_that_many_steps(fraction):
    rollout = estimator("grpo", train_fraction=fraction, group_size=2).collect(task_of())
    steps = [rows.step for rows in rollout.rows]
    assert len(steps) == max(1, round(fraction * (STEPS - 1)))
    assert steps == sorted(set(steps))
    assert max(steps) < STEPS - 1


def test_every_usable_step_gets_its_turn():
    seen = {training_steps(task_of(seed=seed), 0.2, 5)[0] for seed in range(40)}
    assert seen == {0, 1, 2, 3, 4}


def test_equal_generators_give_equal_rollouts_whatever_the_global_generator():
    for method in ("grpo", "rsm_zeroth_order_flow"):
        results = []
        for chance in range(3):
            torch.manual_seed(chance)
            results.append(estimator(method).collect(task_of(seed=chance // 2)).rewards)
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])


def test_selecting_rows_keeps_their_parts_together():
    parts = (randn(5, 2, 4, 4), torch.arange(5), randn(5, 3, 2, 4, 4, seed=1), randn(5, 3, seed=2))
    whole = StepRows(
        4,
        *parts,
        guidance=randn(5, 2, 4, 4, seed=3),
        sample=torch.arange(10, 15),
        weights=randn(5, 3, seed=4),
        first=7,
        total=30,
    )
    assert (whole.count, whole.branches) == (30, 3)
    rows = whole.select(slice(1, None, 2))
    assert (rows.step, rows.first, rows.count) == (4, 0, 2)
    assert rows.sample.tolist() == [11, 13]
    assert torch.equal(rows.weights, randn(5, 3, seed=4)[[1, 3]])
    assert torch.equal(whole.select(torch.tensor([4, 0])).latents, parts[0][[4, 0]])
    for got, part in zip((rows.latents, rows.prompt_index, rows.noise, rows.advantages), parts, strict=True):
        assert torch.equal(got, part[[1, 3]])
    assert torch.equal(rows.guidance, randn(5, 2, 4, 4, seed=3)[[1, 3]])
    bare = StepRows(4, parts[0], parts[1]).select(slice(0, 1))
    assert bare.anchor_only
    assert (bare.count, bare.branches) == (1, 1)


def test_a_zeroth_order_estimator_carries_nothing():
    made = estimator("grpo")
    made.collect(task_of())
    assert made.state == EstimatorState({})
