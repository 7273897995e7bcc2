"""Whole updates of the forward-process rows, derived again from formulas.

A gradient given to the optimizer must be that of the published loss on finished samples that were noised
again, written here from recorded samples, states, splits and weights. Sources: AWM (arXiv 2509.25050),
DiffusionNFT (arXiv 2509.16117), Reinforce Adjoint Matching (arXiv 2605.10759), and their programs.
"""

import math
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from tests.core.toys import CUMULATIVE, randn, schedule_of
from tests.estimators.toy_model import ToyModel
from tests.updates.recording import Recording, relative
from trainers.samplers.rollout import finished

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-6
FAMILIES = ["flow", "diffusion"]
ROWS = ["awm", "diffusion_nft", "ram"]
# Averages that grow within a few steps, a pull and a contrast that are neither 0 nor 1.
LIVELY = {
    "rollouts": 3,
    "updates_per_rollout": 2,
    "forward_draws": 3,
    "kl_weight": 0.3,
    "old_decay_rate": 0.2,
    "old_decay_max": 0.5,
    "contrast_step": 0.7,
}


@cache
def recorded(name, family="flow", **settings):
    return Recording(name, family, **settings)


def lively(name, family="flow", **settings):
    held = {"old_weight": 0.7} if name == "awm" else {}
    return recorded(name, family, **(LIVELY | held | settings))


# -- raw material ------------------------------------------------------------------------------------


def prompts_of(run, rollout):
    return rollout.chosen.repeat_interleave(run.config.group_size)


def advantages(run, rollout):
    """(r − the prompt's mean)/(the rollout's biased std + 1e-4); bounded ones are clipped and divided."""
    (final,) = rollout.sampled
    prompts = prompts_of(run, rollout)
    rewards = run.rewards(final, prompts)
    spread = ((rewards - rewards.mean()) ** 2).mean().sqrt()
    usual = torch.stack([rewards[prompts == prompt].mean() for prompt in prompts])
    values = (rewards - usual) / (spread + 1e-4)
    limit = run.config.advantage_clamp
    return values.clamp(-limit, limit) / limit if run.config.advantage == "bounded" else values


def weights_after(run, number):
    following = run.rollouts[number + 1 :]
    return following[0].updates[0].weights if following else run.after


def averages(run):
    """The average at each rollout; afterwards it becomes d·average + (1 − d)·θ, d by optimizer steps."""
    config, found, done = run.config, [], 0
    average = run.rollouts[0].updates[0].weights
    for number, rollout in enumerate(run.rollouts):
        found.append(average)
        done += len(rollout.updates)
        kept = min(config.old_decay_max, config.old_decay_rate * max(0, done - config.old_decay_start))
        after = weights_after(run, number)
        average = {name: kept * part + (1 - kept) * after[name] for name, part in average.items()}
    return found


class Places:
    """Samples of a rollout that were noised again to one level: x_t = a·x0 + b·ε, u, advantages, policies."""

    def __init__(self, run, rollout, rows, values, average):
        (final,) = rollout.sampled
        self.run, self.step, self.samples = run, rows.step, rows.sample
        self.signal, self.level = (
            float(part[rows.step]) for part in (run.schedule.signal, run.schedule.noise)
        )
        self.clean, self.state = final[rows.sample], rows.latents
        noise = (self.state - self.signal * self.clean) / self.level
        self.target = noise - self.clean if run.family == "flow" else noise
        self.noise, self.advantages = noise, values[rows.sample]
        self.prompts = prompts_of(run, rollout)[rows.sample]
        self.rolled, self.average = rollout.updates[0].weights, average

    def output(self, weights):
        return self.run.output(weights, self.state, self.step, self.prompts)

    def estimate(self, output):
        """x̂0 of an output."""
        difference = self.state - self.level * output
        return difference if self.run.family == "flow" else difference / self.signal


def mean_of(values):
    return values.flatten(1).mean(1)


# -- losses of the papers -----------------------------------------------------------------------------


def awm_loss(places, weights):
    """PPO on ρ = exp(ℓ_θ − ℓ_rollout) with a generalized Huber ℓ, + β‖o − o_ref‖² + W2‖o − o_ema‖²."""
    config, power = places.run.config, 0.25

    def fit(output):
        error = mean_of((output - places.target) ** 2)
        return -((error + 1e-10) ** power - 1e-10**power) * places.level / power

    output = places.output(weights)
    ratio = (fit(output) - fit(places.output(places.rolled)).detach()).exp()
    bounded = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
    policy = torch.maximum(-places.advantages * ratio, -places.advantages * bounded)
    near_base = mean_of((output - places.output(None)) ** 2)
    near_average = mean_of((output - places.output(places.average)) ** 2)
    return policy + config.kl_weight * near_base + config.old_weight * near_average


def nft_loss(places, weights):
    """r·L₊/b + (1 − r)·L₋/b, each over its detached mean absolute x0 error, + β‖o − o_ref‖²."""
    step = places.run.config.contrast_step
    output, old = places.output(weights), places.output(places.average).detach()
    share = (places.advantages / 2 + 0.5).clamp(0, 1)
    policy = 0.0
    for implicit, part in (
        (step * output + (1 - step) * old, share),
        ((1 + step) * old - step * output, 1 - share),
    ):
        error = places.estimate(implicit) - places.clean
        size = mean_of(error.abs()).clamp(min=1e-5).detach()
        policy = policy + part * mean_of(error**2) / size / step
    return policy + places.run.config.kl_weight * mean_of((output - places.output(None)) ** 2)


def ram_loss(places, weights):
    """‖o_θ − (o_ref + m·A(u − o_old))‖², m = 1/β, the target constant."""
    pull = (places.advantages / places.run.config.kl_weight).view(-1, 1, 1, 1)
    target = places.output(None) + pull * (places.target - places.output(places.average))
    return mean_of((places.output(weights) - target.detach()) ** 2)


LOSSES = {"awm": awm_loss, "diffusion_nft": nft_loss, "ram": ram_loss}


# -- the whole update ---------------------------------------------------------------------------------


def derived(run, loss=None):
    """The gradient of every update of a recording."""
    loss, found = loss or LOSSES[run.method], []
    for rollout, average in zip(run.rollouts, averages(run), strict=True):
        values = advantages(run, rollout)
        places = [Places(run, rollout, rows, values, average) for rows in rollout.rows]
        for turn, update in enumerate(rollout.updates):

            def total(weights, places=places, turns=rollout.turns[0], turn=turn):
                return torch.cat([loss(p, weights)[turns[p.samples] == turn] for p in places]).mean()

            found.append(run.gradient(total, update.weights))
    return found


def gradients(run):
    return [update.gradient for rollout in run.rollouts for update in rollout.updates]


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert relative(one, other) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ROWS)
def test_every_update_of_three_rollouts_has_the_published_gradient(name, family):
    run = lively(name, family)
    assert_same(gradients(run), derived(run))


@pytest.mark.parametrize("name", ROWS)
def test_the_rows_own_settings_give_the_published_gradient(name):
    """One update a rollout, as published."""
    run = recorded(name, rollouts=3)
    assert_same(gradients(run), derived(run))


def published_nft(places, weights):
    """The program's loss: five times the policy's part, and 1e-4 of the KL."""
    near_base = mean_of((places.output(weights) - places.output(None)) ** 2)
    without = nft_loss(places, weights) - places.run.config.kl_weight * near_base
    return 5 * without + 1e-4 * near_base


def test_nft_is_the_published_programs_loss_without_its_factor_of_five():
    run = recorded("diffusion_nft", rollouts=3)
    assert_same([5 * part for part in gradients(run)], derived(run, published_nft))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("split", [{"micro_batch": 3}, {"processes": 2}])
def test_micro_batches_and_processes_leave_the_update_as_it_is(name, split):
    expected = derived(lively(name))
    assert_same(gradients(lively(name, **split)), expected)


# -- advantages, trust regions and averages -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["awm", "diffusion_nft"])
def test_bounded_advantages_are_clipped_before_they_are_divided(name):
    run = lively(name, advantage_clamp=0.6)
    values = torch.cat([advantages(run, rollout) for rollout in run.rollouts])
    assert 0 < int((values.abs() == 1).sum()) < len(values)
    assert_same(gradients(run), derived(run))


def test_the_ratio_clip_acts_from_the_second_update_on():
    run = lively("awm", clip_range=0.005)
    cut = [[update.metrics.clip_fraction for update in rollout.updates] for rollout in run.rollouts]
    assert all(first == 0 and 0 < second < 1 for first, second in cut)
    assert_same(gradients(run), derived(run))
    assert relative(gradients(run)[1], gradients(lively("awm"))[1]) > 1e-3


def test_awm_is_held_to_its_moving_average():
    run = lively("awm")
    pulls = [[update.metrics.pull for update in rollout.updates] for rollout in run.rollouts]
    assert pulls[0][0] == 0, "the average begins as the policy itself"
    assert all(second > 0 for _, second in pulls)
    assert all(first > 0 for first, _ in pulls[1:])


DECAYS = [
    {"old_decay_max": 0.9, "old_decay_rate": 0.2},
    {"old_decay_max": 0.999, "old_decay_rate": 0.15, "old_decay_start": 3},
]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("decay", DECAYS)
def test_averages_keep_a_share_that_grows_with_optimizer_steps(name, decay):
    """DiffusionNFT's types 1 and 2: growing from the start, or from some step on; always up to a bound."""
    run = lively(name, **decay)
    assert_same(gradients(run), derived(run))


@pytest.mark.parametrize("name", ROWS)
def test_an_average_that_keeps_nothing_is_the_policy_of_the_rollout(name):
    """DiffusionNFT's type 0."""
    run = lively(name, old_decay_max=0.0, old_weight=0.0)
    assert_same(gradients(run), derived(run))


def euler(run, latents, weights, prompts):
    times = run.schedule.noise
    for step in range(run.schedule.steps):
        latents = latents - (times[step] - times[step + 1]) * run.output(weights, latents, step, prompts)
    return latents


def dpm2(run, latents, weights, prompts):
    """DPM-Solver++(2M) as DiffusionNFT's program has it; λ = log((1 − t)/t), −∞ at the start."""
    times, before, length = run.schedule.noise.tolist(), None, math.inf
    for step, (now, then) in enumerate(zip(times[:-1], times[1:], strict=True)):
        clean = latents - now * run.output(weights, latents, step, prompts)
        moved = then / now * latents
        if step == 0 or then == 0:
            latents = moved + (1 - then - then / now * (1 - now)) * clean
        else:
            here = math.log((1 - now) / now) if now < 1 else -math.inf
            span = math.log((1 - then) / then) - here
            gain = -(1 - then) * math.expm1(-span)
            latents = moved + gain * clean + 0.5 * gain * span / length * (clean - before)
        before = clean
        length = math.log((1 - then) / then) - math.log((1 - now) / now) if then > 0 and now < 1 else math.inf
    return latents


@pytest.mark.parametrize(("name", "solver"), [("awm", dpm2), ("diffusion_nft", dpm2), ("ram", euler)])
def test_the_rollouts_are_made_by_the_average_where_it_is_the_old_policy(name, solver):
    run = lively(name)
    for rollout, average in zip(run.rollouts, averages(run), strict=True):
        weights = rollout.updates[0].weights if name == "awm" else average
        ((begun,), (final,)) = rollout.begun, rollout.sampled
        with torch.no_grad():
            expected = solver(run, begun, weights, prompts_of(run, rollout))
        torch.testing.assert_close(final, expected, rtol=1e-6, atol=1e-6)


# -- noise levels and the solver ------------------------------------------------------------------------


def drawn_steps(run):
    """The steps of every sample of a one-rollout recording."""
    (rollout,) = run.rollouts
    pairs = [(int(sample), rows.step) for rows in rollout.rows for sample in rows.sample]
    return [sorted(step for sample, step in pairs if sample == n) for n in range(len(rollout.sampled[0]))]


def test_states_are_noised_with_standard_normal_noise_of_their_own():
    run = recorded("ram", forward_draws=8, prompts_per_update=5, group_size=16)
    (rollout,) = run.rollouts
    values = advantages(run, rollout)
    noise = torch.cat([Places(run, rollout, rows, values, None).noise for rows in rollout.rows]).flatten(1)
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    assert float((noise @ noise.T / noise.shape[1]).fill_diagonal_(0).abs().max()) < 0.95


def test_uniform_levels_of_a_sample_are_different():
    drawn = drawn_steps(recorded("diffusion_nft", forward_draws=3))
    assert all(len(set(steps)) == 3 for steps in drawn)
    assert set(sum(drawn, [])) == set(range(5)), "any level may be drawn"


def test_stratified_levels_are_those_of_the_published_program():
    """14 steps and 6 strata, of which the first step and the last tenth are none: AWM's discrete_wo_init."""
    strata = [{1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}, {10, 11}]
    drawn = drawn_steps(recorded("awm", rollout_steps=14, forward_draws=6))
    for places in zip(*drawn, strict=True):
        assert set(places) == strata.pop(0)


def test_rams_levels_are_drawn_in_proportion_to_their_noise():
    run = recorded("ram", forward_draws=60)
    counts = np.bincount(sum(drawn_steps(run), []), minlength=5)
    times = run.schedule.noise[:-1].numpy()
    expected = counts.sum() * times / times.sum()
    assert counts.sum() == 60 * 16
    assert float(((counts - expected) ** 2 / expected).sum()) < 18.5, "chi-squared, one in a thousand"


def scheduler_of(schedule):
    """Diffusers' solver of second order on a schedule's own levels."""
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    scheduler = DPMSolverMultistepScheduler(
        trained_betas=(1 - CUMULATIVE / torch.cat([torch.ones(1), CUMULATIVE[:-1]])).tolist(),
        solver_order=2,
        algorithm_type="dpmsolver++",
        lower_order_final=True,
        final_sigmas_type="zero",
        **(flow if schedule.family == "flow" else {}),
    )
    scheduler.set_timesteps(schedule.steps)
    scheduler.timesteps = schedule.timesteps
    scheduler.sigmas = schedule.noise if schedule.family == "flow" else schedule.noise / schedule.signal
    return scheduler


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_the_second_order_solver_is_diffusers(family, steps):
    model, schedule = ToyModel(family, torch.float64), schedule_of(family, steps)
    rows, start = model.encode(["dot", "ring"]), randn(2, *model.latent_shape, seed=5)

    def network(latents, step, samples):
        return model.predict(model.network, latents, float(schedule.timesteps[step]), rows)

    expected, scheduler = start, scheduler_of(schedule)
    with torch.no_grad():
        for step, time in enumerate(schedule.timesteps):
            output = network(expected, step, None)
            expected = scheduler.step(output, time, expected).prev_sample.double()
        got = finished(network, schedule, start, "dpm2")
        first_order = finished(network, schedule, start)
    assert relative(got, expected) < 1e-5, "diffusers keeps the state in float32"
    assert relative(got, first_order) > 1e-3
