"""Whole updates of the first-order rows, derived again from formulas.

A gradient given to the optimizer must be that of the published loss, written here from the recorded states,
noises, splits and weights. Reward gradients are this file's own, through the toy's decoder and reward, and
through its network where the method reads ahead. Sources: VGG-Flow (arXiv 2512.05116), residual ∇-DB (arXiv
2412.07775), SQDF (arXiv 2512.04559), RSM (arXiv 2604.17415), and their published programs.
"""

from copy import copy
from dataclasses import replace
from functools import cache

import pytest
import torch

from tests.core.toys import CUMULATIVE
from tests.updates.recording import Recording, ToyWithGuidance, relative

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-6
SCALES = {
    ("rsm_first_order_flow", "flow"): 3.0,
    ("vgg_flow", "flow"): 3.0,
    ("rsm_first_order_diffusion", "diffusion"): 5.0,
    ("residual_nabla_db", "diffusion"): 5.0,
    ("sqdf", "diffusion"): 40.0,
}
ROWS = list(SCALES)
STRATIFIED = [row for row in ROWS if row[0] in ("rsm_first_order_diffusion", "residual_nabla_db")]


class ToyWithNoisyEnd(ToyWithGuidance):
    """A diffusion whose last step injects noise and ends at ᾱ of the first training step, as SD1.5's does."""

    def schedule(self, steps):
        usual = super().schedule(steps)
        cumulative = torch.cat([usual.signal[:-1] ** 2, CUMULATIVE[:1]])
        return replace(usual, signal=cumulative.sqrt(), noise=(1 - cumulative).sqrt())


@cache
def recorded(name, family, **settings):
    """A recording with reward gradients as they are and none of them shortened, unless asked otherwise."""
    base = {
        "gradient_units": "reward",
        "gradient_quantile": 1.0,
        "reward_scale": SCALES[name, family],
        "old_weight": 2.0 if (name, family) in STRATIFIED else 0.0,
        "rollouts": 3,
    }
    return Recording(name, family, **(base | settings))


# -- raw material ------------------------------------------------------------------------------------


class Places:
    """Where some (sample, step) pairs of a rollout were: their states and what came after."""

    def __init__(self, run, rollout, step, samples):
        (trajectory,) = rollout.sampled
        self.run, self.step, self.samples = run, step, samples
        self.last = step + 1 == run.schedule.steps
        self.state = trajectory.states[step][samples].double()
        self.noise = trajectory.noises[step][samples].double()
        self.after = trajectory.final[samples] if self.last else trajectory.states[step + 1][samples]
        self.final = trajectory.final[samples]
        self.prompts = rollout.chosen[samples // run.config.roots_per_prompt]
        self.rolled = rollout.updates[0].weights

    def at(self, chosen):
        """Some of these places."""
        other = copy(self)
        for name, part in vars(self).items():
            setattr(other, name, part[chosen] if isinstance(part, torch.Tensor) else part)
        return other

    def output(self, weights, **options):
        return self.run.output(weights, self.state, self.step, self.prompts, **options)

    def slope(self, latents, path=lambda latents: latents):
        """∇ of the reward of what ``path`` makes of the latents."""
        leaf = latents.detach().double().requires_grad_(True)
        return torch.autograd.grad(self.run.rewards(path(leaf), self.prompts).sum(), leaf)[0]


def mean_of(values):
    return values.flatten(1).mean(1)


def clean_estimate(run, latents, step, output):
    signal, noise = run.schedule.signal[step], run.schedule.noise[step]
    return latents - noise * output if run.family == "flow" else (latents - noise * output) / signal


def ddim(run, latents, step, noise):
    """DDIM's equations 12 and 16: mean and standard deviation."""
    now, then = run.schedule.signal[step] ** 2, run.schedule.signal[step + 1] ** 2
    std = run.config.noise_level * ((1 - then) / (1 - now)).sqrt() * (1 - now / then).sqrt()
    clean = (latents - (1 - now).sqrt() * noise) / now.sqrt()
    return then.sqrt() * clean + (1 - then - std**2).sqrt() * noise, std


# -- reward gradients, as each method reads them ------------------------------------------------------


def at_the_end(places):
    return places.slope(places.final)


def at_the_clean_estimate(places):
    """The network's output is a constant of the estimate."""
    with torch.no_grad():
        output = places.output(places.rolled)
    return places.slope(clean_estimate(places.run, places.state, places.step, output))


def looked_ahead(places, latents, weights):
    """x̂0 of states after the step; the sampler's last state is finished already."""
    if places.last:
        return latents
    output = places.run.output(weights, latents, places.step + 1, places.prompts)
    return clean_estimate(places.run, latents, places.step + 1, output)


def at_the_next_state(places):
    return places.slope(places.after, lambda latents: looked_ahead(places, latents, places.rolled))


def at_the_next_state_of_the_base(places):
    return places.slope(places.after, lambda latents: looked_ahead(places, latents, None))


# -- losses of the papers -----------------------------------------------------------------------------


def velocity_loss(power):
    def loss(places, slope, weights):
        """‖v − (v_ref − (1 − t)^p·R∇r)‖², guidance's empty half held constant."""
        share = (1 - places.run.schedule.noise[places.step]) ** power
        target = places.output(None) - share * slope
        return mean_of((places.output(weights, constant_empty=True) - target) ** 2)

    return loss


def held_to_the_rollout(places, output):
    old = places.output(places.rolled).detach()
    return places.run.config.old_weight * mean_of((output - old) ** 2)


def transition_means(places, weights):
    """μ_θ, μ_ref, σ and o_θ."""
    output = places.output(weights)
    mean, std = ddim(places.run, places.state, places.step, output)
    return mean, ddim(places.run, places.state, places.step, places.output(None))[0], std, output


def nabla_db_loss(places, slope, weights):
    """‖S_θ − S_ref − R·ᾱ'·∇r‖² with S = −(x' − μ)/σ², held to the rollout's outputs."""
    mean, base, std, output = transition_means(places, weights)
    scores = [-(places.after - center) / std**2 for center in (mean, base)]
    share = places.run.schedule.signal[places.step + 1] ** 2
    error = scores[0] - scores[1] - share * slope
    return mean_of(error**2) + held_to_the_rollout(places, output)


def rsm_diffusion_loss(places, slope, weights):
    """‖(μ_θ − μ_ref)/σ − R·σ·∇r‖², held to the rollout's outputs."""
    mean, base, std, output = transition_means(places, weights)
    return mean_of(((mean - base) / std - std * slope) ** 2) + held_to_the_rollout(places, output)


def discount_of(places):
    return places.run.config.discount ** (places.run.schedule.steps - 1 - places.step)


def sqdf_loss(places, slope, weights):
    """α·‖μ_θ − μ_ref‖²/(2σ²) − γ^k·⟨∇r, μ_θ⟩, to first order in the distance from the rollout."""
    mean, base, std, _ = transition_means(places, weights)
    held = places.run.config.kl_weight * mean_of((mean - base) ** 2) / (2 * std**2)
    return held - discount_of(places) * mean_of(slope * mean)


METHODS = {
    "rsm_first_order_flow": (at_the_end, velocity_loss(1)),
    "vgg_flow": (at_the_clean_estimate, velocity_loss(2)),
    "rsm_first_order_diffusion": (at_the_end, rsm_diffusion_loss),
    "residual_nabla_db": (at_the_next_state, nabla_db_loss),
    "sqdf": (at_the_next_state_of_the_base, sqdf_loss),
}


# -- the whole update ---------------------------------------------------------------------------------


def trained_places(run, rollout):
    """The drawn (sample, step) pairs, step by step."""
    return [Places(run, rollout, rows.step, rows.sample) for rows in rollout.rows]


def derived(run, rescaled=None):
    """The gradient of every update of a recording.

    ``rescaled`` takes all raw reward gradients of a rollout, step by step, and its number; by default they
    are multiplied by the reward's scale and otherwise left as they are.
    """
    read, loss = METHODS[run.method]
    found = []
    for number, rollout in enumerate(run.rollouts):
        places = trained_places(run, rollout)
        raw = [read(place) for place in places]
        slopes = rescaled(raw, number) if rescaled else [run.config.reward_scale * part for part in raw]
        for turn, update in enumerate(rollout.updates):

            def total(weights, places=places, slopes=slopes, turns=rollout.turns[0], turn=turn):
                mine = [turns[place.samples] == turn for place in places]
                parts = zip(places, slopes, mine, strict=True)
                return torch.cat([loss(p.at(own), s[own], weights) for p, s, own in parts]).mean()

            found.append(run.gradient(total, update.weights))
    return found


def gradients(run):
    return [update.gradient for rollout in run.rollouts for update in rollout.updates]


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert relative(one, other) < TOLERANCE


@pytest.mark.parametrize(("name", "family"), ROWS)
def test_every_update_of_three_rollouts_has_the_published_gradient(name, family):
    run = recorded(name, family)
    assert_same(gradients(run), derived(run))


@pytest.mark.parametrize(("name", "family"), STRATIFIED)
def test_a_rollouts_second_update_is_held_to_the_policy_that_made_it(name, family):
    run = recorded(name, family)
    pulls = [[update.metrics.pull for update in rollout.updates] for rollout in run.rollouts]
    assert all(first == 0 and second > 0 for first, second in pulls)
    free = recorded(name, family, old_weight=0.0)
    weights = [update.weights for update in free.rollouts[0].updates]
    assert all(torch.equal(weights[0][key], part) for key, part in run.rollouts[0].updates[0].weights.items())
    assert relative(gradients(free)[1], gradients(run)[1]) > 1e-3, "the pull must be felt"


@pytest.mark.parametrize("name", ["rsm_first_order_flow", "vgg_flow", "sqdf"])
def test_a_second_update_goes_on_with_the_reward_gradients_of_the_rollout(name):
    run = recorded(name, dict(ROWS)[name], updates_per_rollout=2, rollouts=2)
    assert_same(gradients(run), derived(run))


@pytest.mark.parametrize(("name", "family"), ROWS)
@pytest.mark.parametrize("split", [{"micro_batch": 3}, {"processes": 2}])
def test_micro_batches_and_processes_leave_the_update_as_it_is(name, family, split):
    settings = {"rollouts": 2, "updates_per_rollout": 2, "train_fraction": 0.5}
    expected = derived(recorded(name, family, **settings))
    assert_same(gradients(recorded(name, family, **settings, **split)), expected)


@pytest.mark.parametrize(("name", "family"), ROWS)
def test_a_fraction_of_the_steps_is_trained(name, family):
    run = recorded(name, family, rollouts=2, updates_per_rollout=2, train_fraction=0.5)
    assert_same(gradients(run), derived(run))


def steps_of_samples(run, rollout):
    pairs = [(int(sample), rows.step) for rows in rollout.rows for sample in rows.sample]
    count = len(rollout.chosen) * run.config.roots_per_prompt
    return [sorted(step for sample, step in pairs if sample == number) for number in range(count)]


@pytest.mark.parametrize(("name", "family"), STRATIFIED)
def test_every_sample_trains_its_last_noisy_step_and_one_of_each_stratum(name, family):
    """Usable are the four steps that inject noise; half of them are two strata of two."""
    run = recorded(name, family, rollouts=2, updates_per_rollout=2, train_fraction=0.5)
    drawn = [steps for rollout in run.rollouts for steps in steps_of_samples(run, rollout)]
    assert all(a in (0, 1) and b in (2, 3) and c == 3 for a, b, c in drawn)
    assert len(set(map(tuple, drawn))) == 4, "samples draw for themselves"


def test_sqdf_draws_a_random_set_for_each_sample():
    run = recorded("sqdf", "diffusion", rollouts=2, updates_per_rollout=2, train_fraction=0.5)
    drawn = [tuple(steps) for rollout in run.rollouts for steps in steps_of_samples(run, rollout)]
    assert all(len(set(steps)) == 2 and set(steps) <= {0, 1, 2, 3} for steps in drawn)
    assert len(set(drawn)) > 3


@pytest.mark.parametrize("name", ["rsm_first_order_flow", "vgg_flow"])
def test_flow_rows_train_every_step_of_every_sample(name):
    run = recorded(name, "flow")
    assert all(steps == [0, 1, 2, 3, 4] for steps in steps_of_samples(run, run.rollouts[0]))


# -- the last step, the reparameterization and the scale of gradients --------------------------------------


@pytest.mark.parametrize(("name", "family"), [row for row in ROWS if row[1] == "diffusion"])
def test_the_step_to_the_finished_sample_is_trained_where_it_injects_noise(name, family):
    run = recorded(name, family, toy=ToyWithNoisyEnd, rollouts=2, updates_per_rollout=2)
    assert all(4 in steps for steps in steps_of_samples(run, run.rollouts[0]))
    assert_same(gradients(run), derived(run))


def reparameterized(places, _, weights):
    """SQDF as it is written: −γ^k·R·r(x̂0(μ_θ + σz)) + α·KL, the reward shared among a state's elements.

    The state that was reached is the recorded one: the toy's first step is drawn in float32.
    """
    mean, base, std, _ = transition_means(places, weights)
    torch.testing.assert_close(mean + std * places.noise, places.after, rtol=1e-5, atol=1e-5)
    held = places.run.config.kl_weight * mean_of((mean - base) ** 2) / (2 * std**2)
    reached = looked_ahead(places, places.after + mean - mean.detach(), None)
    reward = places.run.config.reward_scale * places.run.rewards(reached, places.prompts)
    return held - discount_of(places) * reward / mean[0].numel()


def test_sqdf_follows_the_reparameterized_reward(monkeypatch):
    """With one update a rollout the noise of the step carries the gradient, and nothing is linearized."""
    run = recorded("sqdf", "diffusion")
    monkeypatch.setitem(METHODS, "sqdf", (at_the_end, reparameterized))
    assert_same(gradients(run), derived(run))


@pytest.mark.parametrize(("name", "family"), [("vgg_flow", "flow"), ("residual_nabla_db", "diffusion")])
def test_gradients_in_units_of_their_first_root_mean_square(name, family):
    settings = {"gradient_units": "rms", "rollouts": 3, "train_fraction": 0.5}
    run = recorded(name, family, reward_scale=0.7, **settings)
    units = []

    def rescaled(raw, number):
        if number == 0:
            units.append(torch.stack([part.pow(2).mean() for part in raw]).mean().sqrt())
        return [0.7 * part / units[0] for part in raw]

    expected = derived(run, rescaled)
    assert_same(gradients(run), expected)
    both = recorded(name, family, reward_scale=0.7, processes=2, **settings)
    assert_same(gradients(both), expected)


def held_at_quantile(scale, quantile, seen, window=256):
    """Rows longer than the quantile of the latest norms, their own step's included, become as long as it."""

    def rescaled(raw, _):
        found = []
        for part in raw:
            norms = scale * part.flatten(1).norm(dim=1)
            seen.extend(norms.tolist())
            latest = sorted(seen[-window:])
            place = quantile * (len(latest) - 1)
            low = int(place)
            limit = latest[low] + (place - low) * (latest[min(low + 1, len(latest) - 1)] - latest[low])
            kept = torch.where(norms > limit, limit / norms, torch.ones_like(norms))
            found.append(scale * part * kept.view(-1, 1, 1, 1))
        return found

    return rescaled


@pytest.mark.parametrize("roots", [2, 32])
def test_reward_gradients_are_shortened_to_the_running_quantile_of_their_norms(roots):
    """With 32 samples a prompt one rollout has more norms than the window keeps."""
    settings = {"gradient_quantile": 0.8, "roots_per_prompt": roots, "rollouts": 2}
    run, seen = recorded("vgg_flow", "flow", **settings), []
    expected = derived(run, held_at_quantile(SCALES["vgg_flow", "flow"], 0.8, seen))
    assert_same(gradients(run), expected)
    assert (len(seen) > 256) == (roots == 32)
    assert relative(gradients(run)[0], derived(run)[0]) > 1e-3, "some gradients must have been shortened"
    if roots == 2:
        assert_same(gradients(recorded("vgg_flow", "flow", processes=2, **settings)), expected)
