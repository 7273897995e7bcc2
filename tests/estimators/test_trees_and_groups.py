"""Trees of stochastic trajectories and the groups in which rewards are compared."""

import dataclasses

import pytest
import torch

from tests.core.toys import SHAPE, randn, schedule_of
from tests.estimators.toy_model import WORDS, Constant, Smooth, ToyModel, task_of
from tests.samplers.published import STEPS, ddim_step, flow_grpo_step
from trainers.config import RunConfig
from trainers.estimators.contract import EstimatorState
from trainers.estimators.zeroth_order import ZerothOrder
from trainers.methods import METHODS
from trainers.samplers.kernels import stochastic_kernel
from trainers.samplers.rollout import branch_tree

NOISE = 0.7
NOISY = {"flow": flow_grpo_step, "diffusion": ddim_step}


def network(latents, step, index):
    return torch.tanh(latents) * (1 + 0.1 * step) + index.view(-1, 1, 1, 1)


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_every_child_is_a_published_step_from_its_parent(family):
    roots = randn(3, *SHAPE, seed=1)
    tree = branch_tree(
        network,
        schedule_of(family, STEPS),
        roots,
        (0, 2, 3),
        stochastic_kernel(family),
        NOISE,
        torch.Generator().manual_seed(2),
    )
    assert [noise.shape[1] for noise in tree.noises] == [1, 2, 3, 1, 1, 1]
    assert [len(parents) for parents in tree.parents] == [3, 3, 6, 18, 18, 18]
    assert torch.equal(tree.parents[0], roots)
    for step in range(STEPS):
        parents, noise = tree.parents[step], tree.noises[step]
        index = torch.arange(3).repeat_interleave(len(parents) // 3)
        center, std = NOISY[family](step, parents, network(parents, step, index), NOISE)
        children = (center.unsqueeze(1) + std * noise).flatten(0, 1)
        after = tree.parents[step + 1] if step + 1 < STEPS else tree.leaves
        torch.testing.assert_close(children, after)


def leaf_rewards(task):
    """(roots, leaves) rewards of the pictures that were decoded last."""
    leaves = torch.cat(task.policy.model.decoded)
    words = [word for word in WORDS[:3] for _ in range(len(leaves) // 3)]
    return Smooth()(ToyModel(dtype=torch.float64).decoder(leaves), words).view(6, -1)


def tree(family="flow", **settings):
    task = task_of(family)
    base = {"branches": (2, 0, 3), "noise_level": NOISE, "roots_per_prompt": 2, "advantage_clamp": 100.0}
    return task, ZerothOrder(METHODS.get("branch_grpo"), RunConfig(**(base | settings))).collect(task)


NODES = {0: 2, 1: 2, 2: 6, 3: 6, 4: 6, 5: 6}  # of a tree, after each step


@pytest.mark.parametrize("kind", ["mean", "group"])
def test_a_node_is_worth_the_mean_of_its_leaves_among_its_tree_s_nodes_of_that_depth(kind):
    """Each of the two trees of a prompt is compared with itself; the deviation divides by one less."""
    task, rollout = tree(advantage=kind)
    rewards = leaf_rewards(task)
    assert rollout.images_sampled == 36
    assert [rows.step for rows in rollout.rows] == list(range(STEPS)), "the last step injects noise"
    for rows in rollout.rows:
        values = rewards.view(6, NODES[rows.step], -1).mean(2)
        expected = values - values.mean(1, keepdim=True)
        if kind == "group":
            expected = expected / (values.std(1, correction=1, keepdim=True) + 1e-8)
        torch.testing.assert_close(rows.advantages.flatten(), expected.flatten(), rtol=1e-6, atol=1e-9)
        assert rows.prompt_index.tolist() == sorted(rows.prompt_index.tolist())


def test_the_last_step_of_a_tree_is_not_trained_where_it_has_no_noise():
    _, rollout = tree("diffusion")
    assert [rows.step for rows in rollout.rows] == list(range(STEPS - 1))


def test_a_tree_whose_leaves_are_alike_is_counted_once():
    task = task_of(reward=Constant())
    config = RunConfig(branches=(2, 0, 3), noise_level=NOISE, roots_per_prompt=2)
    rollout = ZerothOrder(METHODS.get("branch_grpo"), config).collect(task)
    assert rollout.zero_spread_groups == 6
    assert not any(rows.advantages.any() for rows in rollout.rows)


@pytest.mark.parametrize(("method", "groups"), [("grpo", 3), ("ppo", 1)])
def test_rewards_are_compared_within_a_prompt_or_over_the_batch(method, groups):
    task = task_of("flow")
    config = RunConfig(group_size=4, noise_level=NOISE, advantage="mean")
    rollout = ZerothOrder(METHODS.get(method), config).collect(task)
    rewards = rollout.rewards.view(groups, -1)
    expected = (rewards - rewards.mean(1, keepdim=True)).flatten()
    torch.testing.assert_close(rollout.rows[0].advantages[:, 0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["grpo", "awm"])
def test_a_prompt_that_is_drawn_twice_is_one_group(method):
    """As in the published trackers, whose groups are named by their prompt."""
    task = dataclasses.replace(task_of(), chosen=torch.tensor([1, 0, 1]))
    spec = METHODS.get(method)
    config = RunConfig(group_size=4, noise_level=NOISE, advantage_clamp=100.0, forward_draws=6)
    rollout = spec.load()(spec, config).collect(task)
    prompts = torch.tensor([1] * 4 + [0] * 4 + [1] * 4)
    expected = torch.empty(12, dtype=torch.float64)
    for prompt in (0, 1):
        group = rollout.rewards[prompts == prompt]
        expected[prompts == prompt] = (group - group.mean()) / (group.std(correction=0) + 1e-4)
    for rows in rollout.rows:
        torch.testing.assert_close(rows.advantages[:, 0], expected[rows.sample], rtol=1e-9, atol=1e-9)
    silent = dataclasses.replace(task_of(reward=Constant()), chosen=task.chosen)
    assert spec.load()(spec, config).collect(silent).zero_spread_groups == 2


@pytest.mark.parametrize("method", ["grpo", "pcpo"])
def test_the_deviation_is_the_prompt_s_or_the_rollout_s(method):
    family = METHODS.get(method).families[-1]
    epsilon = {"grpo": 1e-4, "pcpo": 1e-8}[method]
    for chosen in ("group", "rollout"):
        config = RunConfig(group_size=4, noise_level=NOISE, advantage_std=chosen)
        rollout = ZerothOrder(METHODS.get(method), config).collect(task_of(family))
        rewards = rollout.rewards.view(3, 4)
        spread = rewards.std(1, correction=0, keepdim=True)
        if chosen == "rollout":
            spread = rewards.std(correction=0)
        expected = (rewards - rewards.mean(1, keepdim=True)) / (spread + epsilon)
        torch.testing.assert_close(rollout.rows[0].advantages.view(3, 4), expected, rtol=1e-9, atol=1e-9)


def test_the_rollout_s_deviation_is_that_of_all_branched_steps_together():
    config = RunConfig(branches=(3, 0, 4), noise_level=NOISE, advantage_std="rollout", kl_weight=0.0)
    rollout = ZerothOrder(METHODS.get("rsm_zeroth_order_flow"), config).collect(task_of())
    spread = rollout.rewards.std(correction=0)
    for rows, rewards in zip(rollout.rows, rollout.rewards.split([9, 12]), strict=True):
        rewards = rewards.view(3, -1)
        expected = (rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-4)
        torch.testing.assert_close(rows.advantages, expected, rtol=1e-9, atol=1e-9)


# -- a prompt's own history ----------------------------------------------------------------------------


TILT = 0.3


def ddpo(seen, now, size, kind="group"):
    """DDPO's statistics, prompt by prompt: its latest rewards once there are 16, else the whole rollout's.

    ``seen`` maps a prompt to its earlier rewards and takes up the present ones, which count.
    """
    everything = torch.cat(list(now.values()))
    for prompt, rewards in now.items():
        seen[prompt] = (seen.get(prompt, []) + rewards.tolist())[-size:]
    found = {}
    for prompt, rewards in now.items():
        known = everything
        if len(seen[prompt]) >= 16:
            known = torch.tensor(seen[prompt], dtype=torch.float64)
        found[prompt] = {
            "group": (rewards - known.mean()) / (known.std(correction=0) + 1e-6),
            "mean": rewards - known.mean(),
            "raw": rewards,
            "tilted": (rewards / TILT).exp() / (known / TILT).exp().mean() - 1.0,
        }[kind]
    return found


@pytest.mark.parametrize("size", [16, 20, 32])
@pytest.mark.parametrize("kind", ["group", "mean", "raw", "tilted"])
def test_a_prompt_that_was_seen_often_is_compared_with_its_own_latest_rewards(size, kind):
    config = RunConfig(group_size=6, history_size=size, advantage=kind, advantage_clamp=100.0, tilt=TILT)
    made = ZerothOrder(METHODS.get("ppo"), config)
    seen, own = {}, 0
    for number, prompts in enumerate([(0, 1), (0, 1), (0, 1), (0, 2), (0, 1), (0, 1)]):
        task = task_of(seed=number)
        task = dataclasses.replace(task, chosen=torch.tensor(prompts))
        rollout = made.collect(task)
        now = {prompt: rollout.rewards[6 * i : 6 * i + 6] for i, prompt in enumerate(prompts)}
        expected = torch.cat(list(ddpo(seen, now, size, kind).values()))
        own += sum(len(seen[prompt]) >= 16 for prompt in prompts)
        torch.testing.assert_close(rollout.rows[0].advantages[:, 0], expected, rtol=1e-5, atol=1e-5)
    assert own == 7, "some are compared with themselves and some with the rollout"


def test_a_history_travels_with_the_state_and_can_be_switched_off():
    config = RunConfig(group_size=8, history_size=32)
    made, other = (ZerothOrder(METHODS.get("ppo"), config) for _ in range(2))
    for number in range(2):
        made.collect(task_of(seed=number))
    other.state = EstimatorState(
        dict(made.state.values), {name: tensor.clone() for name, tensor in made.state.tensors.items()}
    )
    one, two = (estimator.collect(task_of(seed=2)) for estimator in (made, other))
    assert torch.equal(one.rows[0].advantages, two.rows[0].advantages)
    fresh = ZerothOrder(METHODS.get("ppo"), config).collect(task_of(seed=2))
    assert not torch.equal(one.rows[0].advantages, fresh.rows[0].advantages)
    batch = ZerothOrder(METHODS.get("ppo"), RunConfig(group_size=8, history_size=0))
    for number in range(3):
        rollout = batch.collect(task_of(seed=number))
    assert batch.state == EstimatorState()
    assert torch.equal(rollout.rows[0].advantages, fresh.rows[0].advantages)


# -- shared initial noise ------------------------------------------------------------------------------

BY_SAMPLE = [("grpo", 4), ("rsm_zeroth_order_flow", 2), ("branch_grpo", 2), ("awm", 4), ("sqdf", 2)]


@pytest.mark.parametrize(("method", "samples"), BY_SAMPLE)
@pytest.mark.parametrize("kind", ["own", "shared"])
def test_all_samples_of_a_prompt_begin_with_its_noise_where_it_is_shared(method, samples, kind, monkeypatch):
    spec, started = METHODS.get(method), []
    config = RunConfig(group_size=4, roots_per_prompt=2, initial_noise=kind, noise_level=NOISE)
    task = task_of("flow")
    network = task.policy.sample_output

    def watched(latents, schedule, step, rows):
        if step == 0:
            started.append(latents)
        return network(latents, schedule, step, rows)

    monkeypatch.setattr(task.policy, "sample_output", watched)
    spec.load()(spec, config).collect(task)
    noise = started[0].view(3, samples, -1)
    alike = (noise == noise[:, :1]).all(2)
    assert bool(alike.all()) == (kind == "shared")
    assert len(noise.flatten(0, 1).unique(dim=0)) == (3 if kind == "shared" else 3 * samples)


def test_the_kernel_of_rollouts_can_be_chosen():
    one, two = (
        ZerothOrder(METHODS.get("grpo"), RunConfig(group_size=4, kernel=kernel)).collect(task_of("flow"))
        for kernel in ("flow_sde", "flow_cps")
    )
    assert torch.equal(one.rows[0].latents, two.rows[0].latents)
    assert not torch.allclose(one.rows[1].latents, two.rows[1].latents)
