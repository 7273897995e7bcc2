"""The forward-process rows (AWM, DiffusionNFT, RAM) and REINFORCE with KL: rows and published losses.

A network output is written o_θ = o_old + δ_θ, where o_old is the toy policy's own output at the row's state,
so that the estimator's rows and the losses below speak of the same old policy.
"""

import pytest
import torch

from tests.core.toys import ToyNetwork, gradient, moved, relative_error
from tests.estimators.toy_model import WORDS, Constant, Smooth, ToyModel, task_of
from tests.samplers.published import STEPS, ddim_step, flow_grpo_step
from trainers.config import RunConfig
from trainers.estimators.forward_process import ForwardProcess
from trainers.methods import METHODS
from trainers.objective import Objective
from trainers.samplers.rollout import finished

FAMILIES = ("flow", "diffusion")
GROUP, BETA, CLIP, STEP_SIZE = 4, 0.3, 0.05, 0.7
NOISY = {"flow": flow_grpo_step, "diffusion": ddim_step}


def config_of(method, **settings):
    base = {"group_size": GROUP, "kl_weight": BETA, "clip_range": CLIP, "contrast_step": STEP_SIZE}
    return RunConfig(**(dict(METHODS.get(method).defaults) | base | settings))


def collect(method, family, **settings):
    task = task_of(family)
    return task, ForwardProcess(METHODS.get(method), config_of(method, **settings)).collect(task)


def levels_of(task, step):
    return float(task.schedule.signal[step]), float(task.schedule.noise[step])


def old_output(task, rows):
    model = ToyModel(task.schedule.family, torch.float64)
    conditions = task.conditions.select(rows.prompt_index)
    return model.predict(model.network, rows.latents, float(task.schedule.timesteps[rows.step]), conditions)


def parts(task, rows, slope):
    """(u, x0) behind a row: u from the carried direction, x0 from the state."""
    direction = rows.noise[:, 0] / slope + old_output(task, rows)
    signal, noise = levels_of(task, rows.step)
    if task.schedule.family == "flow":
        return direction, rows.latents - noise * direction
    return direction, (rows.latents - noise * direction) / signal


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["awm", "diffusion_nft", "ram"])
def test_rows_are_the_finished_pictures_noised_again(method, family):
    task, rollout = collect(method, family, forward_draws=3)
    finals = torch.cat(task.policy.model.decoded)
    assert len(finals) == 3 * GROUP == rollout.images_sampled
    seen = torch.zeros(len(finals), dtype=torch.long)
    for rows in rollout.rows:
        _, clean = parts(task, rows, 2.0**0.5)
        apart = (clean.unsqueeze(1) - finals).abs().amax((2, 3, 4))
        assert float(apart.amin(1).max()) < 1e-4, "every row must come from a finished picture"
        owner = apart.argmin(1)
        seen += torch.bincount(owner, minlength=len(finals))
        assert rows.prompt_index.tolist() == [int(i) // GROUP for i in owner]
        assert rows.sample.tolist() == owner.tolist()
        distinct = method == "ram" or len(set(rows.sample.tolist())) == len(rows.sample)
        assert distinct, "only independent draws name a level twice"
    assert seen.tolist() == [3] * len(finals), "every picture is trained at three levels"


LEVELS_KINDS = ("uniform", "stratified", "noise")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("kind", "scale"), [("group", 1.0), ("bounded", 5.0)])
@pytest.mark.parametrize("spread_of", ["group", "rollout"])
def test_advantages_compare_the_pictures_of_a_prompt(family, kind, scale, spread_of):
    """(r − mean of the prompt)/(std + 1e-4), std of the prompt's or of all pictures; bounded is a fifth."""
    task, rollout = collect(
        "awm", family, forward_draws=4, advantage=kind, advantage_std=spread_of, advantage_clamp=5.0
    )
    words = [word for word in WORDS[:3] for _ in range(GROUP)]
    finals = torch.cat(task.policy.model.decoded)
    rewards = Smooth()(ToyModel(dtype=torch.float64).decoder(finals), words).view(3, GROUP)
    spread = rewards.std(1, correction=0, keepdim=True)
    if spread_of == "rollout":
        spread = rewards.std(correction=0)
    expected = ((rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-4)).flatten() / scale
    for rows in rollout.rows:
        torch.testing.assert_close(rows.advantages[:, 0], expected[rows.sample], rtol=1e-9, atol=1e-9)


def drawn_steps(kind, draws, steps, count=400):
    """(count, draws) the steps at which each finished picture is noised again."""
    config = config_of("awm", group_size=count, forward_levels=kind, forward_draws=draws)
    task = task_of(prompts=WORDS[:1], steps=steps)
    rollout = ForwardProcess(METHODS.get("awm"), config).collect(task)
    found = [[] for _ in range(count)]
    for rows in rollout.rows:
        for sample in rows.sample.tolist():
            found[sample].append(rows.step)
    return torch.tensor(found), task.schedule


@pytest.mark.parametrize("draws", [1, 4, 6])
def test_uniform_levels_are_different_ones_and_any_of_them(draws):
    found, _ = drawn_steps("uniform", draws, 6)
    assert found.shape == (400, draws)
    assert all(len(set(steps)) == draws for steps in found.tolist())
    shares = found.flatten().bincount(minlength=6) / 400
    assert shares.tolist() == pytest.approx([draws / 6] * 6, abs=0.1)


def test_stratified_levels_are_awm_s_own():
    """T = 14 and six draws: 1 | 2, 3 | 4, 5 | 6, 7 | 8, 9 | 10, 11; never pure noise, never the last two."""
    found, _ = drawn_steps("stratified", 6, 14, count=60)
    assert [set(found[:, i].tolist()) for i in range(6)] == [{1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}, {10, 11}]


def test_stratified_levels_of_short_schedules_are_as_many_as_there_are():
    found, _ = drawn_steps("stratified", 6, 6, count=60)
    assert [set(found[:, i].tolist()) for i in range(found.shape[1])] == [{1}, {2}, {3}, {4}]
    assert set(drawn_steps("stratified", 3, 2, count=60)[0].flatten().tolist()) == {1}


def test_noise_levels_are_independent_and_drawn_as_often_as_they_are_noisy():
    found, schedule = drawn_steps("noise", 8, 6)
    assert found.shape == (400, 8), "more draws than levels, so levels repeat"
    shares = found.flatten().bincount(minlength=6) / found.numel()
    levels = schedule.noise[:-1]
    assert shares.tolist() == pytest.approx((levels / levels.sum()).tolist(), abs=0.03)


@pytest.mark.parametrize("kind", LEVELS_KINDS)
def test_a_level_that_is_drawn_twice_has_new_noise(kind):
    task, rollout = collect("awm", "flow", forward_levels=kind, forward_draws=8)
    latents = torch.cat([rows.latents.flatten(1) for rows in rollout.rows])
    assert len(latents.unique(dim=0)) == len(latents)


@pytest.mark.parametrize("family", FAMILIES)
def test_rollouts_take_the_solver_that_is_asked_for(family):
    finals = {}
    for solver in ("euler", "dpm2"):
        task, _ = collect("diffusion_nft", family, solver=solver)
        finals[solver] = torch.cat(task.policy.model.decoded)
        rows, start = task.conditions.select(torch.arange(3).repeat_interleave(GROUP)), torch.Generator()
        start = torch.randn((3 * GROUP, 2, 4, 4), generator=start.manual_seed(0))
        expected = finished(
            lambda x, step, index, task=task, rows=rows: task.policy.sample_output(
                x, task.schedule, step, rows
            ),
            task.schedule,
            start,
            solver,
        )
        torch.testing.assert_close(finals[solver], expected)
    assert float((finals["euler"] - finals["dpm2"]).abs().max()) > 1e-3


def test_a_group_without_spread_is_counted_and_pulls_nowhere():
    task = task_of(reward=Constant())
    rollout = ForwardProcess(METHODS.get("awm"), config_of("awm")).collect(task)
    assert rollout.zero_spread_groups == 3
    assert not any(rows.advantages.any() for rows in rollout.rows)


# -- the methods' own losses -------------------------------------------------------------------------


HUBER, PULL = 0.25, 0.8


def awm_loss(outputs, direction, advantages, level, average, **_):
    """PPO on ρ = exp(ℓ_θ − ℓ_old), ℓ = −((L + 1e-10)^p − (1e-10)^p)·t/p with L = mean‖o − u‖²,

    plus β‖o − o_ref‖² and W2‖o − o_average‖².
    """
    output, old, base = outputs
    fit = [
        -((((o - direction) ** 2).mean((1, 2, 3)) + 1e-10) ** HUBER - 1e-10**HUBER) * level / HUBER
        for o in (output, old)
    ]
    rho = (fit[0] - fit[1]).exp()
    bounded = rho.clamp(1 - CLIP, 1 + CLIP)
    pull = -torch.minimum(rho * advantages, bounded * advantages)
    held = BETA * ((output - base) ** 2).mean((1, 2, 3))
    return pull + held + PULL * ((output - average) ** 2).mean((1, 2, 3))


def nft_loss(outputs, direction, advantages, clean, to_clean, **_):
    """(ρ·d(o₊) + (1−ρ)·d(o₋))/b with d the squared x0 error over its own mean absolute value, detached."""
    output, old, base = outputs
    share = 0.5 + 0.5 * advantages
    losses = []
    for sign in (1.0, -1.0):
        error = to_clean(old + sign * STEP_SIZE * (output - old)) - clean
        size = error.abs().mean((1, 2, 3)).detach()
        losses.append((error**2).mean((1, 2, 3)) / size)
    held = BETA * ((output - base) ** 2).mean((1, 2, 3))
    return (share * losses[0] + (1 - share) * losses[1]) / STEP_SIZE + held


def ram_loss(outputs, direction, advantages, **_):
    """‖o_θ − (o_ref + (Â/β)(u − o_old))‖² with the target detached, as its program has it."""
    output, old, base = outputs
    scale = (advantages / BETA).view(-1, 1, 1, 1)
    target = (base + scale * (direction - old)).detach()
    return ((output - target) ** 2).mean((1, 2, 3))


PUBLISHED = {"awm": awm_loss, "diffusion_nft": nft_loss, "ram": ram_loss}


def both_gradients(method, family, distance):
    """Gradients (engine, published) of every row's mean loss, `distance` away from the old policy."""
    task, rollout = collect(method, family)
    settings = {"huber_power": HUBER, "old_weight": PULL} if method == "awm" else {}
    objective = Objective(METHODS.get(method), config_of(method, **settings), task.schedule)
    assert objective.held_to == ("average" if method == "awm" else "")
    for rows in rollout.rows:
        start = ToyNetwork(seed=1)
        network, time = moved(start, distance), float(task.schedule.noise[rows.step])
        signal, noise = levels_of(task, rows.step)
        old = old_output(task, rows).detach()
        with torch.no_grad():
            origin, base = start(rows.latents, time), old + ToyNetwork(seed=2)(rows.latents, time)
            average = old + 0.1 * ToyNetwork(seed=4)(rows.latents, time)
        direction, clean = parts(task, rows, 2.0**0.5)

        def to_clean(output, latents=rows.latents, signal=signal, noise=noise):
            difference = latents - noise * output
            return difference if family == "flow" else difference / signal

        def outputs(network=network, rows=rows, time=time, old=old, origin=origin, base=base):
            return old + network(rows.latents, time) - origin, old, base

        engine = gradient(objective(rows, *outputs(), average).loss.mean(), network)
        paper = PUBLISHED[method](
            outputs(),
            direction.detach(),
            rows.advantages[:, 0].double(),
            clean=clean.detach(),
            to_clean=to_clean,
            level=noise,
            average=average,
        )
        yield engine, gradient(paper.mean(), network)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", list(PUBLISHED))
def test_the_engine_has_the_published_gradient_at_the_old_policy(method, family):
    for engine, paper in both_gradients(method, family, 0.0):
        assert relative_error(engine, paper) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", list(PUBLISHED))
@pytest.mark.parametrize("distance", [0.005, 0.05])
def test_the_engine_is_the_published_loss_at_any_distance(method, family, distance):
    for engine, paper in both_gradients(method, family, distance):
        assert relative_error(engine, paper) < 1e-6


def test_awm_s_clip_acts_on_the_weighted_log_ratio():
    """What the objective counts as cut off has no gradient; KL and pull, which would, are switched off."""
    task, rollout = collect("awm", "flow")
    config = config_of("awm", clip_range=0.002, kl_weight=0.0, old_weight=0.0)
    objective = Objective(METHODS.get("awm"), config, task.schedule)
    found, counted, total = 0, 0.0, 0
    for rows in rollout.rows:
        old = old_output(task, rows).detach()
        output = (old + 0.03 * ToyNetwork(seed=5)(rows.latents, 0.5).detach()).requires_grad_(True)
        result = objective(rows, output, old, None)
        (slope,) = torch.autograd.grad(result.loss.sum(), output)
        found += int((slope == 0).flatten(1).all(1).sum())
        counted += float(result.clipped)
        total += len(rows.latents)
    assert counted == found
    assert 0.1 * total < found < 0.9 * total


# -- REINFORCE with KL -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("step", range(STEPS - 1))
def test_reinforce_is_the_policy_gradient_with_the_kernels_kl(family, step):
    """−Â·log p_θ(x' | x) + β·KL(p_θ ‖ p_ref), means over elements, at θ = θ_old."""
    from tests.core.toys import SHAPE, randn, schedule_of
    from trainers.estimators.contract import StepRows

    method, noise_level = METHODS.get("reinforce_kl"), 0.8
    config = RunConfig(noise_level=noise_level, kl_weight=BETA)
    objective = Objective(method, config, schedule_of(family, STEPS))
    latents, noise, advantages = randn(5, *SHAPE, seed=3), randn(5, 1, *SHAPE, seed=4), randn(5, 1, seed=5)
    old, base, time = ToyNetwork(seed=1), ToyNetwork(seed=2), float(schedule_of(family, STEPS).noise[step])
    network = moved(old, 0.0)
    with torch.no_grad():
        fixed = old(latents, time), base(latents, time)
    rows = StepRows(step, latents, torch.arange(5), noise, advantages)
    engine = gradient(objective(rows, network(latents, time), *fixed).loss.mean(), network)

    def kernel(output):
        return NOISY[family](step, latents, output, noise_level)

    (center, std), (before, _), (reference, _) = (kernel(o) for o in (network(latents, time), *fixed))
    reached = before + std * noise[:, 0]
    density = torch.distributions.Normal(center, std).log_prob(reached).mean((1, 2, 3))
    held = ((center - reference) ** 2 / (2 * std**2)).mean((1, 2, 3))
    paper = (-advantages[:, 0] * density + BETA * held).mean()
    assert relative_error(engine, gradient(paper, network)) < 1e-6
