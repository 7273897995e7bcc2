"""The first-order rows that read the reward before the end: VGG-Flow, residual ∇-DB and SQDF.

Each method's own loss is written here from its paper's formulas, with reward gradients taken one state at a
time through a fresh decoder, and compared with the engine's on the same rows.
"""

import pytest
import torch

from tests.core.toys import ToyNetwork, gradient, levels, moved, randn, relative_error
from tests.estimators.toy_model import WORDS, Smooth, ToyModel, task_of
from tests.samplers.published import STEPS, ddim_step, diffusion_ode_step, flow_grpo_step, flow_ode_step
from trainers.config import RunConfig
from trainers.estimators.contract import EstimatorState
from trainers.estimators.first_order import FirstOrder
from trainers.estimators.lookahead import gradient_at, lookahead_levels
from trainers.methods import METHODS
from trainers.objective import Objective

NOISE, SCALE, OLD_WEIGHT, BETA, DISCOUNT = 0.8, 3.0, 0.6, 0.4, 0.9
CASES = [
    (name, family) for name in ("vgg_flow", "residual_nabla_db", "sqdf") for family in ("flow", "diffusion")
]
NOISY = {"flow": flow_grpo_step, "diffusion": ddim_step}
EXACT = {"flow": flow_ode_step, "diffusion": diffusion_ode_step}


def config_of(**settings):
    base = {
        "noise_level": NOISE,
        "reward_scale": SCALE,
        "old_weight": OLD_WEIGHT,
        "kl_weight": BETA,
        "discount": DISCOUNT,
    }
    return RunConfig(**(base | settings))


def collect(name, family, **settings):
    task = task_of(family)
    made = FirstOrder(METHODS.get(name), config_of(**settings))
    return task, made, made.collect(task)


def clean_estimate(task, step, latents, output):
    noise, signal = float(task.schedule.noise[step]), float(task.schedule.signal[step])
    return latents - noise * output if task.schedule.family == "flow" else (latents - noise * output) / signal


def network_output(task, latents, step, index, base=False):
    model = ToyModel(task.schedule.family, torch.float64)
    network = model.base_network if base else model.network
    embeds = task.conditions.select(index).embeds
    return model.predict(network, latents, float(task.schedule.timesteps[step]), _Rows(embeds))


class _Rows:
    def __init__(self, embeds):
        self.embeds = embeds


def reward_of(clean, index):
    return Smooth()(ToyModel(dtype=torch.float64).decoder(clean), [WORDS[i] for i in index.tolist()])


def slope_at(latents, path):
    """∇ of the summed reward that ``path`` computes from latents."""
    leaf = latents.detach().clone().requires_grad_(True)
    return torch.autograd.grad(path(leaf).sum(), leaf)[0]


def by_sample(rows):
    """(N, C, H, W) the states of a step, sample by sample; a stratified choice may hold some twice."""
    latents = rows.latents.double()
    states = torch.full((int(rows.sample.max()) + 1, *latents.shape[1:]), float("nan"), dtype=latents.dtype)
    states[rows.sample] = latents
    return states


def reward_slopes(name, task, rollout):
    """The reward gradient of every row as its paper takes it, in units of their root mean square.

    Residual ∇-DB reads the clean estimate of the next state with the trained network, SQDF with the base.
    """
    found = []
    states = {rows.step: by_sample(rows) for rows in rollout.rows}
    for rows in rollout.rows:
        step, index = rows.step, rows.prompt_index
        if name == "vgg_flow":
            latents = rows.latents.double()
            clean = clean_estimate(task, step, latents, network_output(task, latents, step, index))
            found.append(slope_at(clean, lambda x, index=index: reward_of(x, index)))
        else:
            after = states.get(step + 1)
            if after is None:
                after = step_after(task, rollout, states[step], step)
            base = name == "sqdf"
            found.append(
                slope_at(
                    after[rows.sample], lambda x, i=index, s=step, b=base: look_ahead(task, x, s + 1, i, b)
                )
            )
    size = torch.stack([part.pow(2).mean() for part in found]).mean().sqrt()
    return {rows.step: part / size for rows, part in zip(rollout.rows, found, strict=True)}


def step_after(task, rollout, states, step):
    """The state after the last trained step, drawn again with the rollout's own noise."""
    source = torch.Generator().manual_seed(1)
    for number in range(step + 1):
        kind = torch.float32 if number == 0 else torch.float64
        noise = torch.randn((len(states), 1, 2, 4, 4), generator=source, dtype=kind)
    output = network_output(task, states, step, torch.arange(len(states)))
    center, std = NOISY[task.schedule.family](step, states, output, NOISE)
    return center + std * noise[:, 0]


def look_ahead(task, latents, step, index, base=False):
    """Reward of the one-step clean estimate, the network's Jacobian included."""
    if step == STEPS:
        return reward_of(latents, index)
    output = network_output(task, latents, step, index, base)
    return reward_of(clean_estimate(task, step, latents, output), index)


def published(name, family, step, latents, outputs, slope):
    """(B,) losses of the papers; ``slope`` is the reward gradient in the run's units."""
    output, old, base = outputs
    if name == "vgg_flow":
        signal = 1 - levels(STEPS)[step] if family == "flow" else task_signal(step)
        return ((output - (base - SCALE * signal**2 * slope)) ** 2).mean((1, 2, 3))
    (center, std), (reference, _) = (NOISY[family](step, latents, o, NOISE) for o in (output, base))
    if name == "residual_nabla_db":
        share = (1 - levels(STEPS)[step + 1]) ** 2 if family == "flow" else task_signal(step + 1) ** 2
        score_change = (center - reference) / std**2
        matched = ((score_change - SCALE * share * slope) ** 2).mean((1, 2, 3))
        return matched + OLD_WEIGHT * ((output - old) ** 2).mean((1, 2, 3))
    # SQDF: the discounted reward at the reparameterised next state, to first order, under the kernels' KL.
    gain = DISCOUNT ** (STEPS - 1 - step) * SCALE * (center * slope).mean((1, 2, 3))
    return BETA * ((center - reference) ** 2 / (2 * std**2)).mean((1, 2, 3)) - gain


def task_signal(step):
    return float(task_of("diffusion").schedule.signal[step])


@pytest.mark.parametrize(("name", "family"), CASES)
@pytest.mark.parametrize("distance", [0.0, 0.1])
def test_the_engine_has_the_gradient_of_the_published_loss(name, family, distance):
    task, _, rollout = collect(name, family)
    slopes = reward_slopes(name, task, rollout)
    objective = Objective(METHODS.get(name), config_of(), task.schedule)
    for rows in rollout.rows:
        old, base = ToyNetwork(seed=1), ToyNetwork(seed=2)
        network, time = moved(old, distance), float(task.schedule.noise[rows.step])
        latents = rows.latents.double()
        with torch.no_grad():
            fixed = old(latents, time), base(latents, time)
        outputs = network(latents, time), *fixed
        engine = gradient(objective(rows, *outputs).loss.sum(), network)
        outputs = network(latents, time), *fixed
        paper = published(name, family, rows.step, latents, outputs, slopes[rows.step])
        expected = gradient(paper.sum(), network)
        assert relative_error(engine, expected) < 1e-6


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_the_sqdf_row_is_the_gradient_of_the_reparameterised_reward(family):
    """Without linearising: −discount^i·r(x̂0(μ_θ + σε))/n, differentiated through the transition."""
    task, made, rollout = collect("sqdf", family)
    rows = rollout.rows[2]
    unit = made.state.values["gradient_rms"]
    latents, index = rows.latents.double(), rows.prompt_index
    after = rollout.rows[3].latents.double()
    base_output = network_output(task, latents, 2, index)
    change = torch.zeros_like(latents).requires_grad_(True)
    (center, std), (before, _) = (
        NOISY[family](2, latents, output, NOISE) for output in (base_output + change, base_output)
    )
    reached = center + (after - before)
    value = look_ahead(task, reached, 3, index, base=True) * SCALE / unit / latents[0].numel()
    loss = -(DISCOUNT ** (STEPS - 3)) * value.sum()
    (expected,) = torch.autograd.grad(loss, change)
    objective = Objective(METHODS.get("sqdf"), config_of(), task.schedule)
    output = base_output.clone().requires_grad_(True)
    engine = objective(rows, output, base_output, base_output).loss.sum()
    (got,) = torch.autograd.grad(engine, output)
    assert float((got - expected).norm() / expected.norm()) < 1e-6
    assert float(std) > 0


@pytest.mark.parametrize("family", ["flow", "diffusion"])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("base", [False, True])
def test_a_longer_lookahead_follows_the_ode(family, count, base):
    task = task_of(family)
    latents, index = randn(3, 2, 4, 4, seed=8), torch.tensor([0, 1, 2])
    visited = lookahead_levels(1, STEPS, count)

    def path(state):
        if count == 1:
            return look_ahead(task, state, 1, index, base)
        if count == 5:
            for step in range(1, STEPS):
                state, _ = EXACT[family](step, state, network_output(task, state, step, index, base))
            return reward_of(state, index)
        first, second = visited
        output = network_output(task, state, first, index, base)
        noise, signal = (getattr(task.schedule, part) for part in ("noise", "signal"))
        clean = clean_estimate(task, first, state, output)
        direction = state + float(signal[first]) * output if family == "flow" else output
        state = float(signal[second]) * clean + float(noise[second]) * direction
        return look_ahead(task, state, second, index, base)

    expected = slope_at(latents, path)
    got = gradient_at(task, latents, visited, index, base)
    torch.testing.assert_close(got.double(), expected, rtol=1e-9, atol=1e-12)


def test_lookahead_levels_begin_at_the_state_and_never_pass_the_end():
    assert lookahead_levels(2, 6, 1) == [2]
    assert lookahead_levels(2, 6, 2) == [2, 4]
    assert lookahead_levels(2, 6, 9) == [2, 3, 4, 5]
    assert lookahead_levels(6, 6, 3) == []


def test_a_finished_state_needs_no_lookahead():
    task, index = task_of("flow"), torch.tensor([0, 1, 2])
    latents = randn(3, 2, 4, 4, seed=8)
    expected = slope_at(latents, lambda x: reward_of(x, index))
    torch.testing.assert_close(gradient_at(task, latents, [], index), expected, rtol=1e-9, atol=1e-12)


def test_gradient_norms_are_held_at_their_running_quantile():
    task, made, plain = collect("vgg_flow", "flow", gradient_quantile=1.0)
    _, clipped, bounded = collect("vgg_flow", "flow", gradient_quantile=0.5)
    seen = []
    for free, held in zip(plain.rows, bounded.rows, strict=True):
        share = (1 - float(task.schedule.noise[free.step])) ** 2
        if share == 0:
            seen += (
                (SCALE * reward_slopes("vgg_flow", task, plain)[free.step]).flatten(1).norm(dim=1).tolist()
            )
            continue
        norms, after = (rows.guidance.flatten(1).norm(dim=1) / share for rows in (free, held))
        seen += norms.tolist()
        limit = float(torch.quantile(torch.tensor(seen), 0.5))
        torch.testing.assert_close(after, norms.clamp(max=limit), rtol=1e-4, atol=1e-6, check_dtype=False)
    assert "gradient_norms" not in made.state.tensors
    assert len(clipped.state.tensors["gradient_norms"]) == len(seen)


# -- replay ------------------------------------------------------------------------------------------


def test_replayed_rows_are_earlier_states_with_fresh_guidance():
    made = FirstOrder(METHODS.get("sqdf"), config_of(replay_size=100, replay_share=1.0))
    first = made.collect(task_of("diffusion"))
    assert len(first.rows) == STEPS - 1
    second = made.collect(task_of("diffusion", seed=1))
    stored = {tuple(state.flatten().tolist()) for rows in first.rows for state in rows.latents}
    replayed = second.rows[STEPS - 1 :]
    assert sum(len(rows.latents) for rows in replayed) == sum(len(rows.latents) for rows in first.rows)
    for rows in replayed:
        assert all(tuple(state.flatten().tolist()) in stored for state in rows.latents)
        assert bool(rows.guidance.flatten(1).any(1).all())


@pytest.mark.parametrize("size", [1, 7])
def test_the_buffer_never_grows_beyond_its_size(size):
    made = FirstOrder(METHODS.get("sqdf"), config_of(replay_size=size))
    for seed in range(3):
        made.collect(task_of("diffusion", seed=seed))
    assert {len(tensor) for tensor in made.state.tensors.values()} == {size}


def test_a_restored_buffer_gives_the_same_rollout():
    settings = {"replay_size": 20, "gradient_quantile": 0.7}
    made = FirstOrder(METHODS.get("sqdf"), config_of(**settings))
    made.collect(task_of("diffusion"))
    copy = FirstOrder(METHODS.get("sqdf"), config_of(**settings))
    copy.state = EstimatorState(dict(made.state.values), dict(made.state.tensors))
    one, two = (estimator.collect(task_of("diffusion", seed=1)) for estimator in (made, copy))
    for here, there in zip(one.rows, two.rows, strict=True):
        assert torch.equal(here.guidance, there.guidance)
