"""Rollouts against slow loops over single samples, with a non-linear network that depends on the sample."""

import math

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from tests.core.toys import ToyNetwork, alphas, diffusion, flow, levels, randn
from trainers.core.schedule import diffusion_schedule, flow_schedule
from trainers.samplers.kernels import ddim, flow_sde, ode
from trainers.samplers.rollout import branch_per_step, finished, trajectory

STEPS, ROOTS, NOISE = 6, 3, 0.7
SHARED = ToyNetwork(seed=1)


class Network:
    """Velocity or noise of one sample, which also depends on the sample's own number; counts its rows."""

    def __init__(self):
        self.rows = []

    def one(self, latents, step, sample):
        return SHARED(latents[None], 0.3 * step)[0] * (1.0 + 0.5 * sample)

    def __call__(self, latents, step, index):
        assert len(latents) == len(index)
        self.rows.append(len(latents))
        with torch.no_grad():
            return torch.stack([self.one(x, step, int(i)) for x, i in zip(latents, index, strict=True)])


def naive_step(family, step, latents, output, noise, noise_level):
    """One sample's step, written out: the SDE for flows (t = 1 uses the next level), DDIM for diffusion."""
    if family == "flow":
        t, delta = levels(STEPS)[step], levels(STEPS)[step] - levels(STEPS)[step + 1]
        tau = noise_level * (t / (1 - (levels(STEPS)[1] if step == 0 else t))).sqrt()
        pull = tau**2 / (2 * t)
        drift = output + pull * (latents + (1 - t) * output)
        return latents - delta * drift + tau * delta.sqrt() * noise
    now, after = alphas(STEPS)[1][step], alphas(STEPS)[1][step + 1]
    std = noise_level * ((1 - after) / (1 - now) * (1 - now / after)).sqrt()
    clean = (latents - (1 - now).sqrt() * output) / now.sqrt()
    return after.sqrt() * clean + (1 - after - std**2).sqrt() * output + std * noise


WORLDS = [
    pytest.param("flow", flow(STEPS), flow_sde, id="flow"),
    pytest.param("diffusion", diffusion(STEPS), ddim, id="diffusion"),
]
COUNTS = [(2, 3), (0, 2, 0, 3), (4,), (0, 0, 0, 0, 0, 2), (1, 2, 3, 2, 1, 2), (3, 0, 0, 2, 0, 0)]


@torch.no_grad()
def naive_branching(family, network, roots, counts, noises):
    """Follow every root and every branch alone."""
    zero = torch.zeros_like(roots[0])
    states = [[] for _ in roots]
    for n, state in enumerate(roots):
        for step in range(STEPS):
            states[n].append(state)
            state = naive_step(family, step, state, network.one(state, step, n), zero, 0.0)
    leaves = {}
    for step, count in enumerate(counts):
        for n in range(len(roots)):
            for k in range(count):
                parent = states[n][step]
                output = network.one(parent, step, n)
                state = naive_step(family, step, parent, output, noises[step][n, k], NOISE)
                for later in range(step + 1, STEPS):
                    state = naive_step(family, later, state, network.one(state, later, n), zero, 0.0)
                leaves[step, n, k] = state
    return states, leaves


@pytest.mark.parametrize(("family", "schedule", "kernel"), WORLDS)
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("whole_path", [False, True])
def test_branching_is_the_loop_over_roots_and_branches(family, schedule, kernel, counts, whole_path):
    network, roots = Network(), randn(ROOTS, 2, 4, 4, seed=4)
    result = branch_per_step(
        network, schedule, roots, counts, kernel, NOISE, generator(), whole_path=whole_path
    )
    branching = [step for step, count in enumerate(counts) if count]
    assert list(result.parents) == list(result.noises) == list(result.leaves) == branching
    followed = max(max(branching), STEPS - 2 if whole_path else 0) + 1
    assert sorted([*branching, *result.path]) == list(range(followed))

    states, leaves = naive_branching(family, network, roots, counts, result.noises)
    for step in branching:
        assert result.noises[step].shape == result.leaves[step].shape == (ROOTS, counts[step], 2, 4, 4)
        torch.testing.assert_close(result.parents[step], torch.stack([states[n][step] for n in range(ROOTS)]))
        for n in range(ROOTS):
            for k in range(counts[step]):
                torch.testing.assert_close(result.leaves[step][n, k], leaves[step, n, k])
    for step, path in result.path.items():
        torch.testing.assert_close(path, torch.stack([states[n][step] for n in range(ROOTS)]))


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("whole_path", [False, True])
def test_branching_costs_what_is_documented(counts, whole_path):
    network = Network()
    arguments = flow(STEPS), randn(ROOTS, 2, 4, 4), counts, flow_sde, NOISE, generator()
    branch_per_step(network, *arguments, whole_path=whole_path)
    last = max(step for step, count in enumerate(counts) if count)
    last = max(last, STEPS - 2) if whole_path else last
    a_root = sum(count * (STEPS - 1 - step) for step, count in enumerate(counts)) + last + 1
    assert sum(network.rows) == ROOTS * a_root
    # One call a step; at T − 1 nothing is left to run when branches leave there alone.
    assert len(network.rows) == STEPS


@pytest.mark.parametrize(("family", "schedule", "kernel"), WORLDS)
def test_a_trajectory_is_the_loop_over_steps(family, schedule, kernel):
    network, latents = Network(), randn(ROOTS, 2, 4, 4, seed=4)
    result = trajectory(network, schedule, latents, kernel, NOISE, generator())
    assert len(result.states) == len(result.noises) == STEPS
    assert network.rows == [ROOTS] * STEPS
    with torch.no_grad():
        for n in range(ROOTS):
            state = latents[n]
            for step in range(STEPS):
                torch.testing.assert_close(result.states[step][n], state)
                noise = result.noises[step][n]
                state = naive_step(family, step, state, network.one(state, step, n), noise, NOISE)
            torch.testing.assert_close(result.final[n], state)


@pytest.mark.parametrize(("family", "schedule", "kernel"), WORLDS)
def test_the_euler_solver_is_the_deterministic_trajectory(family, schedule, kernel):
    latents = randn(ROOTS, 2, 4, 4, seed=4)
    path = trajectory(Network(), schedule, latents, ode, 0.0, generator())
    network = Network()
    torch.testing.assert_close(finished(network, schedule, latents), path.final, rtol=0, atol=0)
    assert network.rows == [ROOTS] * STEPS


@pytest.mark.parametrize("family", ["flow", "diffusion"])
@pytest.mark.parametrize("steps", [2, 3, 7])
def test_the_second_order_solver_is_that_of_diffusers(family, steps):
    """DPM-Solver++(2M), first and last steps of first order, from the scheduler's own noise levels."""
    kind = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=2,
        final_sigmas_type="zero",
        **(kind if family == "flow" else {}),
    )
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.double()
    if family == "flow":
        schedule = flow_schedule(sigmas, scheduler.timesteps)
    else:
        schedule = diffusion_schedule(1 / (1 + sigmas**2), scheduler.timesteps)
    latents, network = randn(ROOTS, 2, 4, 4, seed=4).float(), Network()
    got = finished(lambda x, step, index: network(x, step, index).float(), schedule, latents, "dpm2")
    for step, timestep in enumerate(scheduler.timesteps):
        output = network(latents, step, torch.arange(ROOTS)).float()
        latents = scheduler.step(output, timestep, latents).prev_sample
    torch.testing.assert_close(got, latents, rtol=1e-4, atol=1e-5)


def test_the_second_order_solver_begins_at_pure_noise():
    """At t = 1 the log-SNR is −∞: the step after it cannot lean on the one before, and stays finite."""
    latents = randn(ROOTS, 2, 4, 4, seed=4)
    exact = finished(Network(), flow(2), latents, "euler")
    torch.testing.assert_close(finished(Network(), flow(2), latents, "dpm2"), exact)
    assert bool(finished(Network(), flow(STEPS), latents, "dpm2").isfinite().all())


def test_noise_is_only_drawn_where_it_is_used():
    """DDIM's last step is deterministic: its stored noise is zero and the generator is not asked."""
    result = trajectory(Network(), diffusion(STEPS), randn(1, 2, 4, 4), ddim, 1.0, source := generator())
    assert all(noise.any() for noise in result.noises[:-1])
    assert not result.noises[-1].any()
    fresh = generator()
    torch.randn((5, 2, 4, 4), generator=fresh, dtype=torch.float64)
    assert torch.equal(torch.rand(2, generator=fresh), torch.rand(2, generator=source))


def test_branches_of_different_roots_and_steps_have_their_own_noise():
    result = branch_per_step(
        Network(), flow(STEPS), randn(ROOTS, 2, 4, 4), (3, 3), flow_sde, NOISE, generator()
    )
    rows = torch.cat([noise.flatten(0, 1).flatten(1) for noise in result.noises.values()])
    assert len(rows) == 18
    correlation = torch.corrcoef(rows) - torch.eye(18)
    # 32 elements a row: correlations of independent rows spread by 1/√32.
    assert float(correlation.abs().max()) < 5 / math.sqrt(32)
    assert len(torch.unique(rows, dim=0)) == 18


def test_equal_generators_give_equal_rollouts():
    roots = randn(2, 2, 4, 4)
    runs = [
        branch_per_step(Network(), flow(STEPS), roots, (2, 3), flow_sde, NOISE, generator(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0].leaves[1], runs[1].leaves[1])
    assert not torch.equal(runs[0].leaves[1], runs[2].leaves[1])
    again = [
        trajectory(Network(), flow(STEPS), roots, flow_sde, NOISE, generator(seed)).final
        for seed in (0, 0, 1)
    ]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)
