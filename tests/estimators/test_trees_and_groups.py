"""Trees of stochastic trajectories and the groups in which rewards are compared."""

import pytest
import torch

from tests.core.toys import SHAPE, randn, schedule_of
from tests.estimators.toy_model import WORDS, Smooth, ToyModel, task_of
from tests.samplers.published import STEPS, ddim_step, flow_grpo_step
from trainers.config import RunConfig
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


def test_a_node_is_worth_the_mean_of_its_leaves_among_its_prompts_nodes_of_that_depth():
    task = task_of("flow")
    config = RunConfig(branches=(2, 0, 3), noise_level=NOISE, roots_per_prompt=2, advantage="mean")
    rollout = ZerothOrder(METHODS.get("branch_grpo"), config).collect(task)
    leaves = torch.cat(task.policy.model.decoded)
    words = [word for word in WORDS[:3] for _ in range(12)]
    rewards = Smooth()(ToyModel(dtype=torch.float64).decoder(leaves), words).view(3, 12)
    assert rollout.images_sampled == 36
    assert [rows.step for rows in rollout.rows] == list(range(STEPS - 1))
    nodes = {0: 4, 1: 4, 2: 12, 3: 12, 4: 12}
    for rows in rollout.rows:
        values = rewards.view(3, nodes[rows.step], -1).mean(2)
        expected = values - values.mean(1, keepdim=True)
        torch.testing.assert_close(
            rows.advantages.flatten(), expected.flatten().float(), rtol=1e-3, atol=1e-5
        )
        assert rows.prompt_index.tolist() == sorted(rows.prompt_index.tolist())


@pytest.mark.parametrize(("method", "groups"), [("grpo", 3), ("ppo", 1)])
def test_rewards_are_compared_within_a_prompt_or_over_the_batch(method, groups):
    task = task_of("flow")
    config = RunConfig(group_size=4, noise_level=NOISE, advantage="mean")
    rollout = ZerothOrder(METHODS.get(method), config).collect(task)
    rewards = rollout.rewards.view(groups, -1)
    expected = (rewards - rewards.mean(1, keepdim=True)).flatten()
    torch.testing.assert_close(rollout.rows[0].advantages[:, 0], expected, rtol=1e-4, atol=1e-6)


def test_the_kernel_of_rollouts_can_be_chosen():
    one, two = (
        ZerothOrder(METHODS.get("grpo"), RunConfig(group_size=4, kernel=kernel)).collect(task_of("flow"))
        for kernel in ("flow_sde", "flow_cps")
    )
    assert torch.equal(one.rows[0].latents, two.rows[0].latents)
    assert not torch.allclose(one.rows[1].latents, two.rows[1].latents)
