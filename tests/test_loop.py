"""The trainer: exact restarts, exact bookkeeping, and rewards that rise.

Most properties are shown on the toy model of tests/estimators, where an update takes milliseconds; those that
could depend on a real pipeline are shown again on the two shipped models.
"""

import math
from dataclasses import replace

import pytest
import torch

from tests.core.toys import randn
from tests.estimators.toy_model import WORDS, Constant, Smooth, ToyModel
from tests.trainer_cases import EVERY, METHODS_OF, BlackBox, equal, follow, gain, timeless, toy
from trainers.coercion import problems
from trainers.config import RunConfig
from trainers.errors import FaultError, StudioError
from trainers.methods import METHODS
from trainers.policy import Policy
from trainers.tally import Sums

CLIPPED = [pair for pair in EVERY if METHODS.get(pair[1]).objective != "regression"]
# Rows whose target is the base model plus guidance over β; a weak pull for a reward of spread 1.
SCALED = {"reinforce_kl": 0.05, "sqdf": 0.05, "ram": 0.2}
# Whole trajectories of a diffusion have a larger KL, which would leave next to nothing to be gained.
WEAKER = {("diffusion", "reinforce_kl"): 0.002}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("family", "method"), EVERY)
def test_the_first_update_of_a_rollout_starts_at_ratio_one(family, method):
    trainer = toy(family, method, clip_range=1e-9, updates_per_rollout=1)
    for record in follow(trainer, 3):
        assert record.ratio_mean == 1.0
        assert record.clip_fraction == 0.0


@pytest.mark.parametrize(("family", "method"), CLIPPED)
def test_later_updates_of_a_rollout_move_away_from_it(family, method):
    trainer = toy(family, method, updates_per_rollout=2, clip_range=1e-6, learning_rate=0.01)
    first, second = trainer.advance()
    assert (first.ratio_mean, first.clip_fraction) == (1.0, 0.0)
    assert second.ratio_mean != 1.0
    assert 0.0 < second.clip_fraction <= 1.0
    assert (first.step, second.step, first.epoch, second.epoch) == (1, 2, 1, 1)


@pytest.mark.parametrize(("family", "method"), EVERY)
@pytest.mark.parametrize("updates", [1, 2])
def test_a_restored_trainer_continues_bit_for_bit(family, method, updates):
    whole = toy(family, method, updates_per_rollout=updates)
    records = follow(whole, 4)
    first = toy(family, method, updates_per_rollout=updates)
    follow(first, 2)
    saved = first.checkpoint(12.5)
    assert saved.progress.used_seconds == 12.5
    follow(first, 1)
    second = toy(family, method, updates_per_rollout=updates)
    second.restore(saved)
    rest = follow(second, 2)
    assert equal(second.policy.state(), whole.policy.state())
    assert timeless(rest) == timeless(records[2 * updates :])
    assert second.policy.evaluations == whole.policy.evaluations
    here, there = second.checkpoint(0.0), whole.checkpoint(0.0)
    assert here.optimiser.keys() == there.optimiser.keys()
    assert all(equal(here.optimiser[i], there.optimiser[i]) for i in here.optimiser)
    assert here.progress.estimator == there.progress.estimator


@pytest.mark.parametrize("method", ["rsm_zeroth_order_flow", "ppo", "awm"])
def test_a_checkpoint_can_be_gone_back_to_again_and_again(method):
    # So many samples that ppo compares every prompt with its own past from the second rollout on.
    trainer = toy("flow", method, updates_per_rollout=2, group_size=8)
    trainer.advance()
    saved = trainer.checkpoint()
    first = timeless(trainer.advance())
    for _ in range(2):
        trainer.restore(saved)
        assert timeless(trainer.advance()) == first


def test_a_checkpoint_does_not_change_when_training_goes_on():
    trainer = toy("flow", "grpo")
    follow(trainer, 1)
    saved = trainer.checkpoint(0.0)
    copies = {name: tensor.clone() for name, tensor in saved.lora.items()}
    moments = {name: tensor.clone() for name, tensor in saved.optimiser[0].items()}
    follow(trainer, 2)
    assert equal(saved.lora, copies)
    assert equal(saved.optimiser[0], moments)
    assert not equal(trainer.policy.state(), copies)


@pytest.mark.parametrize(("family", "method"), EVERY)
def test_equal_seeds_give_equal_runs_and_others_do_not(family, method):
    states, records = [], []
    for seed, chance in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(chance)
        trainer = toy(family, method, seed=seed)
        records.append(timeless(follow(trainer, 2)))
        states.append(trainer.policy.state())
    assert equal(states[0], states[1])
    assert records[0] == records[1]
    assert not equal(states[0], states[2])


@pytest.mark.parametrize("method", METHODS_OF["flow"])
def test_training_leaves_the_global_generator_and_the_base_model_alone(method):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    trainer = toy("flow", method)
    base = {name: tensor.clone() for name, tensor in trainer.policy.model.network.state_dict().items()}
    follow(trainer, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(trainer.policy.model.network.state_dict(), base)


# -- batches -----------------------------------------------------------------------------------------


def gradients(trainer):
    trainer.advance()
    return torch.cat([parameter.grad.flatten() for parameter in trainer.policy.parameters()])


@pytest.mark.parametrize(("family", "method"), EVERY)
def test_one_batch_of_eight_is_eight_batches_of_one(family, method):
    """Gradient accumulation: the micro-batch changes speed and memory only."""
    settings = {"prompts_per_update": 8, "max_grad_norm": 1e6}
    whole = toy(family, method, micro_batch=8, **settings)
    expected = gradients(whole)
    assert float(expected.norm()) > 0
    for size in (1, 3):
        chunked = toy(family, method, micro_batch=size, **settings)
        assert float((gradients(chunked) - expected).norm() / expected.norm()) < 1e-4


def test_more_updates_than_branches_is_harmless():
    trainer = toy("flow", "rsm_zeroth_order_flow", prompts_per_update=1, updates_per_rollout=9)
    before = trainer.policy.state()
    records = trainer.advance()
    assert [record.step for record in records] == list(range(1, 10))
    assert all(math.isfinite(record.loss) for record in records)
    assert not equal(trainer.policy.state(), before)
    assert sum(record.grad_norm > 0 for record in records) == 6, "one update a branch, three without any"
    assert all(record.loss == record.kl == 0.0 for record in records if record.grad_norm == 0)


# -- the policy --------------------------------------------------------------------------------------


def test_a_fresh_lora_changes_nothing_and_the_merged_copy_follows_it():
    trainer = toy("flow", "grpo", learning_rate=0.05)
    policy, rows = trainer.policy, trainer.conditions.select(torch.tensor([0, 1]))
    latents = torch.randn((2, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    arguments = latents, trainer.schedule, 1, rows
    base = trainer.policy.model.predict(policy.model.network, latents, 750.0, rows)
    torch.testing.assert_close(policy.output(*arguments), base)
    torch.testing.assert_close(policy.reference(*arguments), base)
    torch.testing.assert_close(policy.sample_output(*arguments), base)
    follow(trainer, 3)
    with torch.no_grad():
        trained = policy.output(*arguments)
    assert float((trained - base).abs().max()) > 1e-3
    torch.testing.assert_close(policy.reference(*arguments), base)
    torch.testing.assert_close(policy.sample_output(*arguments), trained, rtol=1e-4, atol=1e-5)


def test_guidance_runs_both_prompts_and_extrapolates():
    model = ToyModel("flow")
    rows = model.encode(WORDS[:2])
    latents = torch.randn((2, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    policy = Policy(model, 2, 4.0, 0, guidance_scale=3.0)
    empty = model.predict(model.network, latents, 750.0, replace(rows, embeds=torch.zeros(2, 3, 4)))
    prompted = model.predict(model.network, latents, 750.0, rows)
    expected = empty + 3.0 * (prompted - empty)
    torch.testing.assert_close(policy.sample_output(latents, model.schedule(4), 1, rows), expected)
    assert policy.evaluations == 4
    plain = Policy(model, 2, 4.0, 0, guidance_scale=1.0)
    torch.testing.assert_close(plain.sample_output(latents, model.schedule(4), 1, rows), prompted)
    assert plain.evaluations == 2


def guided_policy(train_unconditional):
    """A policy that has moved, with guidance and an empty prompt of its own."""
    model = ToyModel("flow", torch.float64)
    policy = Policy(model, 2, 4.0, 0, torch.float64, guidance_scale=3.0)
    policy.train_unconditional = train_unconditional
    for number, parameter in enumerate(policy.parameters()):
        parameter.data = 0.3 * randn(*parameter.shape, seed=number)
    policy.refresh()
    rows = replace(model.encode(WORDS[:2]), negative_embeds=0.7 * randn(1, 3, 4, seed=99))
    return policy, (randn(2, 2, 4, 4, seed=50), model.schedule(4), 1, rows)


def slopes_of(policy, values):
    """Gradient of Σ values·direction to the LoRA, as one vector."""
    loss = (values * randn(*values.shape, seed=51)).sum()
    return torch.cat(
        [part.flatten() for part in torch.autograd.grad(loss, policy.parameters(), retain_graph=True)]
    )


def test_without_a_trained_unconditional_part_values_stay_and_its_gradient_goes():
    (free, where), (held, _) = guided_policy(True), guided_policy(False)
    outputs = [policy.output(*where) for policy in (free, held)]
    torch.testing.assert_close(outputs[1], outputs[0])
    assert free.evaluations == held.evaluations == 4
    latents, schedule, step, rows = where
    time = float(schedule.timesteps[step])
    empty, prompted = (
        free.model.predict(free.network, latents, time, part)
        for part in (replace(rows, embeds=rows.negative_embeds.expand(2, -1, -1)), rows)
    )
    torch.testing.assert_close(slopes_of(held, outputs[1]), slopes_of(free, 3.0 * prompted))
    expected = slopes_of(free, empty + 3.0 * (prompted - empty))
    torch.testing.assert_close(slopes_of(free, outputs[0]), expected)
    torch.testing.assert_close(held.sample_output(*where), free.sample_output(*where))
    torch.testing.assert_close(held.reference(*where), free.reference(*where))


def test_a_gradient_to_the_picture_passes_through_both_parts_all_the_same():
    """Reward gradients are read through the whole guided output; only the LoRA's leave a part out."""
    found = []
    for trained in (True, False):
        policy, (latents, *where) = guided_policy(trained)
        leaf = latents.clone().requires_grad_(True)
        for verb in (policy.output, policy.base_output):
            (slope,) = torch.autograd.grad(verb(leaf, *where).sum(), leaf)
            found.append(slope)
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[3])
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize(("family", "method"), EVERY)
def test_rows_train_the_unconditional_part_as_published(family, method):
    """VGG-Flow's program and RSM's that grew out of it leave it out."""
    assert toy(family, method).policy.train_unconditional == (
        method not in ("vgg_flow", "rsm_first_order_flow")
    )


def test_network_evaluations_are_counted():
    settings = {"kl_weight": 0.0, "prompts_per_update": 4, "updates_per_rollout": 1}
    trainer = toy("flow", "rsm_zeroth_order_flow", branches=(3, 3), **settings)
    trainer.advance()
    # T = 4: 3·3 + 3·2 + 2 rows a root in the rollout, 2 trained rows a root, the base model once for the KL.
    assert trainer.progress.evaluations == 4 * (9 + 6 + 2) + 4 * 2 + 4
    assert trainer.progress.images_sampled == 4 * 6


# -- faults ------------------------------------------------------------------------------------------


class Poisoned(Smooth):
    """Turns into NaN at a chosen picture count."""

    def __init__(self, after):
        self.after, self.seen = after, 0

    def __call__(self, images, prompts, metadata=None):
        self.seen += len(images)
        values = super().__call__(images, prompts)
        return values * math.nan if self.seen > self.after else values


@pytest.mark.parametrize(("family", "method"), EVERY)
def test_a_loss_that_is_not_finite_stops_before_the_step(family, method):
    trainer = toy(family, method, reward=Poisoned(60), prompts_per_update=4, kl_weight=0.01)
    good = None
    with pytest.raises(FaultError) as caught:
        for _ in range(30):
            good = trainer.policy.state()
            trainer.advance()
    assert equal(trainer.policy.state(), good)
    assert trainer.progress.updates >= 1
    assert f"At update {trainer.progress.updates + 1} the" in str(caught.value)
    assert "nan" in str(caught.value)


def test_a_step_that_is_too_long_stops_with_its_value():
    trainer = toy("flow", "rsm_first_order_flow", reward_scale=1e12, max_grad_norm=1e6, learning_rate=1.0)
    for parameter in trainer.policy.parameters():
        parameter.data.fill_(1e30)
    before = trainer.policy.state()
    with pytest.raises(FaultError, match="(inf|nan)"):
        trainer.advance()
    assert equal(trainer.policy.state(), before)


@pytest.mark.parametrize("sums", [{"ratio": math.inf, "branches": 1.0}, {"kl": math.inf, "kl_rows": 1}])
def test_a_ratio_or_kl_that_overflows_behind_a_clipped_loss_stops_before_the_step(sums):
    trainer = toy("flow", "grpo")
    before = trainer.policy.state()
    with pytest.raises(FaultError, match="At update 1 the (mean ratio|KL) became inf"):
        trainer._step(Sums(loss=0.5, **sums), 1.0)
    assert equal(trainer.policy.state(), before)


def test_a_reward_that_says_the_same_of_everything_teaches_nothing():
    trainer = toy("flow", "grpo", reward=Constant(), kl_weight=0.0, weight_decay=0.0)
    before = trainer.policy.state()
    for record in trainer.advance():
        assert record.zero_spread_groups == 4
        assert record.reward_std < 1e-6
        assert record.grad_norm == 0.0
    assert equal(trainer.policy.state(), before)


def test_a_branch_where_the_sampler_adds_no_noise_is_refused_in_words():
    """DDIM's last step to ᾱ' = 1 is deterministic: branches there are all alike and have no log-ratio."""
    settings = {"rollout_steps": 4, "branches": (0, 0, 0, 3)}
    if problems(RunConfig(estimator="rsm_zeroth_order_diffusion", **settings)) == []:
        with pytest.raises(StudioError):
            toy("diffusion", "rsm_zeroth_order_diffusion", **settings).advance()


# -- what is reported --------------------------------------------------------------------------------


def test_metrics_count_what_happened():
    trainer = toy("flow", "grpo", updates_per_rollout=2, learning_rate=0.02)
    records = follow(trainer, 2)
    assert [(record.step, record.epoch) for record in records] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert [record.images_sampled for record in records] == [12, 12, 24, 24]
    for record in records:
        assert record.lr == 0.02
        assert record.grad_norm > 0
        assert record.rollout_seconds > 0
        assert record.update_seconds > 0
        assert record.peak_memory_mb > 0
        assert record.images_per_second > 0
    assert records[0].kl == 0.0
    assert records[2].kl > 0
    assert trainer.progress.updates == 4
    assert trainer.progress.rollouts == 2
    assert trainer.progress.train_seconds > 0


def test_reward_statistics_are_those_of_the_pictures():
    reward = Smooth()
    trainer = toy("flow", "grpo", reward=reward, updates_per_rollout=1)
    (record,) = trainer.advance()
    values = torch.cat([Smooth()(images, prompts) for images, prompts in reward.calls])
    assert record.reward_mean == pytest.approx(float(values.mean()), rel=1e-5)
    assert record.reward_std == pytest.approx(float(values.std(correction=0)), rel=1e-4)


# -- learning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "method"), EVERY)
def test_every_method_raises_an_easy_reward(family, method):
    reward = Smooth() if METHODS.get(method).order == "first" else BlackBox(Smooth())
    trainer = toy(
        family,
        method,
        reward=reward,
        prompts_per_update=10,
        group_size=12,
        branches=(8, 8),
        noise_level=1.0 if family == "diffusion" else 0.7,
        learning_rate=0.02,
        clip_range=0.1,
        kl_weight=WEAKER.get((family, method), SCALED.get(method, 0.0)),
        reward_scale=20.0 if family == "diffusion" else 1.0,
        forward_draws=1,
    )
    # Over several seeds the rise was 9 to 50 times its standard error.
    mean, error = gain(trainer, 12)
    assert mean > 5 * error
