"""First-order guidance: the terminal reward gradient, its scale, and the methods' own losses."""

import dataclasses

import pytest
import torch

from tests.core.toys import ToyNetwork, alphas, gradient, levels, moved, relative_error
from tests.estimators.toy_model import WORDS, Constant, Smooth, ToyModel, task_of
from tests.samplers.published import STEPS, ddim_step, flow_ode_step
from trainers.config import RunConfig
from trainers.errors import FaultError
from trainers.estimators.contract import EstimatorState
from trainers.estimators.first_order import FirstOrder
from trainers.estimators.scoring import score, score_with_gradient
from trainers.methods import METHODS
from trainers.objective import Objective
from trainers.rewards.contract import Reward

NOISE, SCALE, OLD_WEIGHT = 0.8, 3.0, 0.6
METHOD = {"flow": "rsm_first_order_flow", "diffusion": "rsm_first_order_diffusion"}
FAMILIES = ("flow", "diffusion")
# A deterministic rollout can be trained at every step; the last step of a noisy one may have no noise.
USABLE = {"flow": STEPS, "diffusion": STEPS - 1}
SAMPLES = 6  # two roots of three prompts


def config_of(**settings):
    return RunConfig(**({"noise_level": NOISE, "reward_scale": SCALE, "old_weight": OLD_WEIGHT} | settings))


def estimator(family, **settings):
    return FirstOrder(METHODS.get(METHOD[family]), config_of(**settings))


def reward_gradients(final, prompts):
    """∇_{x0} r(D(x0)) of each finished sample, one at a time, through a fresh decoder."""
    decoder = ToyModel(dtype=torch.float64).decoder
    found = []
    for latents, prompt in zip(final, prompts, strict=True):
        leaf = latents.detach().double()[None].requires_grad_(True)
        found.append(torch.autograd.grad(Smooth()(decoder(leaf), [prompt]).sum(), leaf)[0][0])
    return torch.stack(found)


def collected(family, **settings):
    """A rollout, and the gradients of its samples in units of their root mean square."""
    task = task_of(family)
    made = estimator(family, roots_per_prompt=2, **settings)
    rollout = made.collect(task)
    final = torch.cat(task.policy.model.decoded)
    slopes = reward_gradients(final, [word for word in WORDS[:3] for _ in range(2)])
    return task, made, rollout, slopes / slopes.pow(2).mean().sqrt()


def once(rows):
    """Rows of one step with every sample once; a stratified choice may name the last step twice."""
    first = [rows.sample.tolist().index(number) for number in sorted(set(rows.sample.tolist()))]
    return rows.select(torch.tensor(first))


def published(family, step, latents, outputs, slopes):
    """The methods' own losses, (B,).

    Flow (VGG-Flow without value network, strength (1−t), terminal gradient): ‖v_θ − (v_ref − s(1−t)∇r)‖².
    Diffusion (residual ∇-DB without residual, terminal gradient): the score of the transition is matched,
    ‖(μ_θ − μ_ref)/σ² − s∇r‖²·σ², plus W2‖ε̂_θ − ε̂_old‖².
    """
    output, old, base = outputs
    if family == "flow":
        target = base - SCALE * (1 - levels(STEPS)[step]) * slopes
        return ((output - target) ** 2).mean((1, 2, 3))
    center, std = ddim_step(step, latents, output, NOISE)
    reference, _ = ddim_step(step, latents, base, NOISE)
    score_change = (center - reference) / std**2
    matched = std**2 * ((score_change - SCALE * slopes) ** 2).mean((1, 2, 3))
    return matched + OLD_WEIGHT * ((output - old) ** 2).mean((1, 2, 3))


def squared(family, step, latents, outputs, slopes):
    """The row of reward score matching: W1‖o_θ − (o_ref + γG)‖² + W2‖o_θ − o_old‖²."""
    output, old, base = outputs
    if family == "flow":
        weight, pull, guidance = 1.0, 0.0, -(1 - levels(STEPS)[step]) * SCALE * slopes
    else:
        now, after = alphas(STEPS)[1][step], alphas(STEPS)[1][step + 1]
        std = NOISE * ((1 - after) / (1 - now)).sqrt() * (1 - now / after).sqrt()
        k = -((1 - now).sqrt() * (after / now).sqrt() - (1 - after - std**2).sqrt())
        weight, pull, guidance = k**2 / std**2, OLD_WEIGHT, std**2 / k * SCALE * slopes
    fit = weight * ((output - base - guidance) ** 2).mean((1, 2, 3))
    return fit + pull * ((output - old) ** 2).mean((1, 2, 3))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("distance", [0.0, 0.1])
def test_three_losses_have_one_gradient(family, distance):
    """At θ = θ_old and away from it: these losses are squares, so nothing is only approximate."""
    task, _, rollout, slopes = collected(family)
    objective = Objective(METHODS.get(METHOD[family]), config_of(), task.schedule)
    assert [rows.step for rows in rollout.rows] == list(range(USABLE[family]))
    for rows in rollout.rows:
        old, base = ToyNetwork(seed=1), ToyNetwork(seed=2)
        network, time = moved(old, distance), float(task.schedule.noise[rows.step])
        latents = rows.latents.double()
        with torch.no_grad():
            fixed = old(latents, time), base(latents, time)
        outputs = network(latents, time), *fixed
        engine = objective(rows, *outputs).loss
        assert set(rows.sample.tolist()) == set(range(SAMPLES))
        mine = slopes[rows.sample]
        arguments = family, rows.step, latents, outputs, mine
        expected = gradient(published(*arguments).sum(), network)
        torch.testing.assert_close(engine, published(*arguments), rtol=1e-6, atol=0)
        outputs = network(latents, time), *fixed
        engine = gradient(objective(rows, *outputs).loss.sum(), network)
        assert relative_error(engine, expected) < 1e-6
        outputs = network(latents, time), *fixed
        row = gradient(squared(family, rows.step, latents, outputs, mine).sum(), network)
        assert relative_error(engine, row) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_the_kl_of_first_order_rows_is_reported_but_not_followed(family):
    task, _, rollout, _ = collected(family)
    objective = Objective(METHODS.get(METHOD[family]), config_of(kl_weight=5.0), task.schedule)
    quiet = Objective(METHODS.get(METHOD[family]), config_of(kl_weight=0.0), task.schedule)
    rows = rollout.rows[2]
    output, old, base = (ToyNetwork(seed=i)(rows.latents, 0.5).detach() for i in range(3))
    result = objective(rows, output, old, base)
    assert bool((result.kl > 0).all())
    torch.testing.assert_close(result.loss, quiet(rows, output, old, base).loss)
    assert (result.clip_fraction, result.ratio) == (0.0, 1.0)


def test_the_pull_to_the_previous_policy_can_be_switched_off():
    task, _, rollout, _ = collected("diffusion")
    rows = rollout.rows[2]
    output, old, base = (ToyNetwork(seed=i)(rows.latents, 0.5).detach() for i in range(3))
    losses = [
        Objective(METHODS.get(METHOD["diffusion"]), config_of(old_weight=weight), task.schedule)(
            rows, output, old, base
        ).loss
        for weight in (0.0, 0.5, 1.0)
    ]
    torch.testing.assert_close(losses[2] - losses[0], ((output - old) ** 2).mean((1, 2, 3)))
    torch.testing.assert_close(losses[2] - losses[1], losses[1] - losses[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_following_the_guidance_moves_the_clean_estimate_up_the_reward(family):
    task, _, rollout, slopes = collected(family)
    for rows in rollout.rows:
        step = rows.step
        if family == "flow":
            change = -levels(STEPS)[step] * rows.guidance
        else:
            alpha = alphas(STEPS)[1][step]
            change = -((1 - alpha).sqrt() / alpha.sqrt()) * rows.guidance
        gain = (change * slopes[rows.sample]).sum((1, 2, 3))
        assert bool((gain > 0).all()) or (family == "flow" and step == 0 and not rows.guidance.any())


def test_flow_trajectories_are_deterministic_and_end_where_the_gradient_is_taken():
    task, _, rollout, _ = collected("flow")
    state = rollout.rows[0].latents
    for step in range(STEPS):
        torch.testing.assert_close(rollout.rows[step].latents, state, check_dtype=False)
        rows = task.conditions.select(rollout.rows[0].prompt_index)
        velocity = task.policy.sample_output(state, task.schedule, step, rows)
        state, _ = flow_ode_step(step, state, velocity)
    torch.testing.assert_close(torch.cat(task.policy.model.decoded), state, rtol=1e-6, atol=1e-6)


def test_diffusion_trajectories_are_noisy_and_end_where_the_gradient_is_taken():
    """The last two steps: one adds noise of the kernel's size, the last is deterministic."""
    task, _, rollout, _ = collected("diffusion")
    before, final = once(rollout.rows[-1]), torch.cat(task.policy.model.decoded)
    rows = task.conditions.select(before.prompt_index)
    output = task.policy.sample_output(before.latents, task.schedule, before.step, rows)
    center, std = ddim_step(before.step, before.latents, output, NOISE)
    source = torch.Generator().manual_seed(1)
    noise = [torch.randn((6, 1, 2, 4, 4), generator=source) for _ in range(1)]
    for _ in range(STEPS - 2):
        noise.append(torch.randn((6, 1, 2, 4, 4), generator=source, dtype=torch.float64))
    last = center + std * noise[-1][:, 0]
    output = task.policy.sample_output(last, task.schedule, STEPS - 1, rows)
    torch.testing.assert_close(ddim_step(STEPS - 1, last, output, NOISE)[0], final)


@pytest.mark.parametrize("micro_batch", [1, 4, 128])
def test_the_terminal_gradient_is_autograd_through_the_decoder(micro_batch):
    task = task_of(micro_batch=micro_batch)
    index = torch.tensor([2, 0, 0, 1, 2])
    latents = torch.randn((5, 2, 4, 4), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    values, slopes = score_with_gradient(task, latents, index)
    words = [WORDS[i] for i in index.tolist()]
    expected = Smooth()(ToyModel(dtype=torch.float64).decode(latents), words)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(slopes, reward_gradients(latents, words))
    assert not latents.requires_grad
    assert not values.requires_grad
    plain = score(task, latents, index)
    torch.testing.assert_close(plain, values)
    assert max(len(prompts) for _, prompts in task.reward.calls) == min(micro_batch, 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_is_measured_once_and_travels_with_the_state(family):
    made = estimator(family)
    assert made.state == EstimatorState({})
    first = made.collect(task_of(family))
    rms = made.state.values["gradient_rms"]
    second = made.collect(task_of(family, prompts=WORDS[3:], seed=1))
    assert made.state.values == {"gradient_rms": rms}
    restored = estimator(family)
    restored.state = EstimatorState({"gradient_rms": rms})
    again = restored.collect(task_of(family, prompts=WORDS[3:], seed=1))
    fresh = estimator(family).collect(task_of(family, prompts=WORDS[3:], seed=1))
    assert torch.equal(second.rows[1].guidance, again.rows[1].guidance)
    assert not torch.allclose(second.rows[1].guidance, fresh.rows[1].guidance, rtol=1e-3)
    if family == "flow":
        # γ = 1 − t; the rest has root mean square reward_scale on the first rollout.
        size = first.rows[2].guidance.pow(2).mean().sqrt() / (1 - float(levels(STEPS)[2]))
        assert float(size) == pytest.approx(SCALE, rel=1e-5)


class Scaled(Smooth):
    def __call__(self, images, prompts, metadata=None):
        return 250.0 * super().__call__(images, prompts) - 7.0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_and_shift_of_a_reward_do_not_change_its_guidance(family):
    plain = estimator(family).collect(task_of(family))
    other = estimator(family).collect(task_of(family, reward=Scaled()))
    for one, two in zip(plain.rows, other.rows, strict=True):
        torch.testing.assert_close(one.guidance, two.guidance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reward_scale_multiplies_the_guidance(family):
    one = estimator(family, reward_scale=1.0).collect(task_of(family))
    four = estimator(family, reward_scale=4.0).collect(task_of(family))
    torch.testing.assert_close(4.0 * one.rows[2].guidance, four.rows[2].guidance)


class Steep(Reward):
    """Its gradient overflows."""

    def __call__(self, images, prompts, metadata=None):
        return images.double().mean((1, 2, 3)) * 1e200


@pytest.mark.parametrize("reward", [Constant(), Steep()], ids=["flat", "overflowing"])
def test_a_gradient_that_cannot_be_followed_is_a_fault(reward):
    with pytest.raises(FaultError, match="zeroth-order"):
        estimator("flow").collect(task_of(reward=reward))


@pytest.mark.parametrize("fraction", [0.01, 0.6, 1.0])
def test_the_train_fraction_picks_that_many_steps_for_all_samples(fraction):
    rollout = estimator("flow", train_fraction=fraction).collect(task_of("flow"))
    steps = [rows.step for rows in rollout.rows]
    assert len(steps) == max(1, round(fraction * STEPS))
    assert steps == sorted(set(steps))
    assert all(rows.sample.tolist() == [0, 1, 2] for rows in rollout.rows)
    assert rollout.zero_spread_groups == 0
    assert rollout.images_sampled == len(rollout.rewards) == 3


def chosen_by_sample(method, fraction, seed=0, prompts=WORDS[:3]):
    """The steps at which each sample is trained, in order, and which of its states these are."""
    task = task_of("diffusion", prompts=prompts, seed=seed)
    made = FirstOrder(METHODS.get(method), config_of(train_fraction=fraction, roots_per_prompt=20))
    rollout = made.collect(task)
    count = 20 * len(prompts)
    found = {sample: [] for sample in range(count)}
    for rows in rollout.rows:
        assert rows.prompt_index.tolist() == [sample // 20 for sample in rows.sample.tolist()]
        for sample in rows.sample.tolist():
            found[sample].append(rows.step)
    assert rollout.images_sampled == len(rollout.rewards) == count
    return found


@pytest.mark.parametrize("method", ["rsm_first_order_diffusion", "residual_nabla_db"])
@pytest.mark.parametrize(
    ("fraction", "strata"), [(0.01, [range(5)]), (0.6, [range(1), range(1, 3), range(3, 5)])]
)
def test_stratified_samples_train_one_step_of_each_stratum_and_always_the_last(method, fraction, strata):
    """Of 5 steps with noise, cut at 5/3 and 10/3, rounded down. Source: the program of ∇-DB."""
    found = chosen_by_sample(method, fraction)
    for steps in found.values():
        assert len(steps) == len(strata) + 1
        *drawn, last = steps
        assert last == STEPS - 2, "the last step that injects noise"
        assert all(step in stratum for step, stratum in zip(drawn, strata, strict=True))
    seen = [{steps[part] for steps in found.values()} for part in range(len(strata))]
    assert seen == [set(stratum) for stratum in strata], "every step of a stratum gets its turn"


@pytest.mark.parametrize("fraction", [0.01, 0.4, 1.0])
def test_uniform_samples_train_different_steps_of_their_own(fraction):
    found = chosen_by_sample("sqdf", fraction)
    count = max(1, round(fraction * (STEPS - 1)))
    for steps in found.values():
        assert steps == sorted(set(steps))
        assert len(steps) == count
    assert len({tuple(steps) for steps in found.values()}) > 1 or count == STEPS - 1
    assert {step for steps in found.values() for step in steps} == set(range(STEPS - 1))


def test_rows_are_states_of_the_samples_that_they_name():
    """Every state is drawn again from the one before; a row's latents must be its sample's there."""
    every = chosen_states(1.0)
    some = chosen_states(0.4)
    assert 0 < len(some) < len(every)
    for place, latents in some.items():
        assert torch.equal(latents, every[place])


def chosen_states(fraction):
    """(step, sample) → latents of the rows of one rollout."""
    made = FirstOrder(METHODS.get("sqdf"), config_of(train_fraction=fraction, roots_per_prompt=2))
    rollout = made.collect(task_of("diffusion"))
    return {
        (rows.step, sample): latents
        for rows in rollout.rows
        for sample, latents in zip(rows.sample.tolist(), rows.latents, strict=True)
    }


@pytest.mark.parametrize(("kernel", "steps"), [("auto", STEPS - 1), ("pcpo", STEPS - 1)])
def test_the_last_step_of_a_noisy_rollout_is_trained_if_it_has_noise(kernel, steps):
    rollout = estimator("diffusion", kernel=kernel).collect(task_of("diffusion"))
    assert max(rows.step for rows in rollout.rows) == steps - 1
    noisy = FirstOrder(METHODS.get("residual_nabla_db"), config_of()).collect(task_of("flow"))
    assert max(rows.step for rows in noisy.rows) == STEPS - 1
    skipping = dataclasses.replace(METHODS.get("residual_nabla_db"), last_step=False)
    for row, settings in ((skipping, {}), (METHODS.get("residual_nabla_db"), {"last_step": "skip"})):
        skipped = FirstOrder(row, config_of(**settings)).collect(task_of("flow"))
        assert max(rows.step for rows in skipped.rows) == STEPS - 2
    # Deterministic rollouts have no noisy step to leave out.
    kept = estimator("flow", last_step="skip").collect(task_of("flow"))
    assert max(rows.step for rows in kept.rows) == STEPS - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_generators_give_equal_rollouts(family):
    rollouts = [estimator(family).collect(task_of(family, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(rollouts[0].rows[1].guidance, rollouts[1].rows[1].guidance)
    assert not torch.equal(rollouts[0].rows[1].guidance, rollouts[2].rows[1].guidance)
