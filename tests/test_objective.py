"""Gradient identities of the zeroth-order methods, on a random float64 network.

Three losses are compared for each method: the engine's (`Objective` on rows), the method's own published
loss, written here from log-densities of the published kernels, and the plain squared loss of the project

    W1·‖o_θ − (o_old + γG)‖² + β·s·‖o_θ − o_ref‖²,    G = (σ/k)·Â·ε,    s = λ = k²/(2σ²) or λΔ.

The first two agree wherever θ is; the third has the same gradient at θ = θ_old and leaves the others
quadratically. First-order methods are in tests/estimators/test_first_order.py.
"""

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from tests.core.toys import (
    SHAPE,
    gradient,
    randn,
    relative_error,
    schedule_of,
)
from tests.samplers.published import STEPS
from tests.zeroth_order_study import BETA, CASES, HOLDS_ANCHORS, KERNEL, MATCHING, NOISE, ROWS, TRAINED, Study
from trainers.config import RunConfig
from trainers.core.schedule import diffusion_schedule
from trainers.estimators.contract import StepRows
from trainers.methods import METHODS
from trainers.objective import Objective


@pytest.mark.parametrize(("method", "family", "step"), TRAINED)
def test_three_losses_have_one_gradient_at_the_old_policy(method, family, step):
    study = Study(method, family, step)
    engine = gradient(study.engine(), study.network)
    assert relative_error(engine, gradient(study.published(), study.network)) < 1e-6
    assert relative_error(engine, gradient(study.squared(), study.network)) < 1e-6


@pytest.mark.parametrize(("method", "family"), CASES)
@pytest.mark.parametrize("tight", [True, False])
@pytest.mark.parametrize("step", [0, 2, 4])
def test_engine_and_published_loss_agree_away_from_the_old_policy(method, family, tight, step):
    study = Study(method, family, step, size=0.02)
    if tight:
        study.cut_half()
    result = study.objective(study.rows, *study.outputs())
    assert (0 < result.clip_fraction < 1) == tight, "a tight trust region must cut some branches and not all"
    torch.testing.assert_close(study.engine(), study.published(), rtol=1e-9, atol=0.0)
    expected = gradient(study.published(), study.network)
    assert relative_error(gradient(study.engine(), study.network), expected) < 1e-6


@pytest.mark.parametrize(("method", "family"), CASES)
@pytest.mark.parametrize("step", [0, 3])
def test_the_squared_loss_is_left_quadratically(method, family, step):
    """Loss differences shrink with order 2 and gradient differences with order 1 in the step size."""

    def errors(size):
        here, there = Study(method, family, step, size), Study(method, family, step)
        engine, squared = (
            float((getattr(here, form)() - getattr(there, form)()).detach()) for form in ("engine", "squared")
        )
        slopes = [gradient(getattr(here, form)(), here.network) for form in ("engine", "squared")]
        return abs(engine - squared), float((slopes[0] - slopes[1]).norm())

    loss, slope = zip(*(errors(size) for size in (4e-3, 1e-3)), strict=True)
    assert loss[0] / loss[1] == pytest.approx(16.0, rel=0.15)
    assert slope[0] / slope[1] == pytest.approx(4.0, rel=0.15)


@pytest.mark.parametrize(("method", "family"), MATCHING)
def test_matching_rows_with_advantage_one_are_the_squared_loss_at_any_distance(method, family):
    study = Study(method, family, 2, size=0.2)
    study.advantages = torch.ones_like(study.advantages)
    study.rows = replace(study.rows, advantages=study.advantages)
    expected = gradient(study.squared(), study.network)
    assert relative_error(gradient(study.engine(), study.network), expected) < 1e-9


@pytest.mark.parametrize(("method", "family"), CASES)
def test_at_the_old_policy_the_ratio_is_one_and_nothing_is_clipped(method, family):
    study = Study(method, family, 2, clip=1e-3)
    result = study.objective(study.rows, *study.outputs())
    assert result.ratio == 1.0
    assert result.clip_fraction == 0.0


@pytest.mark.parametrize(("method", "family"), CASES)
def test_the_clip_fraction_counts_branches_without_a_pull(method, family):
    study = Study(method, family, 2, size=0.02, beta=0.0)
    study.noise, study.advantages = randn(ROWS, 200, *SHAPE, seed=4), randn(ROWS, 200, seed=5)
    study.cut_half()
    output, old, base = study.outputs()
    noise = study.noise.clone().requires_grad_(True)
    rows = StepRows(2, study.latents, torch.arange(ROWS), noise, study.advantages)
    result = study.objective(rows, output, old, base)
    (slopes,) = torch.autograd.grad(result.loss.sum(), noise)
    without = (slopes == 0).flatten(2).all(2).double().mean()
    assert 0.05 < float(without) < 0.95
    assert result.clip_fraction == pytest.approx(float(without), abs=1e-6)


@pytest.mark.parametrize(("method", "family"), KERNEL)
def test_the_reported_ratio_is_the_mean_importance_weight(method, family):
    study = Study(method, family, 2, size=0.1)
    output, old, base = study.outputs()
    expected = study.log_ratio(output, old).exp().mean()
    assert study.objective(study.rows, output, old, base).ratio == pytest.approx(float(expected.detach()))


@pytest.mark.parametrize(("method", "family"), CASES)
def test_branches_of_a_shared_state_are_the_mean_of_separate_rows(method, family):
    study = Study(method, family, 1, size=0.05)
    study.cut_half()
    noise, advantages = randn(ROWS, 5, *SHAPE, seed=4), randn(ROWS, 5, seed=5)
    output, old, base = study.outputs()
    index = torch.arange(ROWS)
    shared = study.objective(StepRows(1, study.latents, index, noise, advantages), output, old, base)
    alone = [
        study.objective(
            StepRows(1, study.latents, index, noise[:, i : i + 1], advantages[:, i : i + 1]),
            output,
            old,
            base,
        )
        for i in range(5)
    ]
    torch.testing.assert_close(shared.loss, torch.stack([part.loss for part in alone]).mean(0))
    for part in alone:
        torch.testing.assert_close(part.kl, shared.kl)


@pytest.mark.parametrize(("method", "family"), CASES)
def test_a_steps_weight_does_not_grow_with_its_branches(method, family):
    study = Study(method, family, 1, size=0.05)
    outputs = study.outputs()
    few = study.objective(study.rows, *outputs).loss
    index, repeat = torch.arange(ROWS), (study.noise.repeat(1, 3, 1, 1, 1), study.advantages.repeat(1, 3))
    many = study.objective(StepRows(1, study.latents, index, *repeat), *outputs).loss
    torch.testing.assert_close(many, few)


@pytest.mark.parametrize(("method", "family"), CASES)
def test_a_row_s_weights_are_those_of_its_branches_and_their_sum_that_of_its_kl(method, family):
    study = Study(method, family, 1, size=0.02)
    noise, advantages = randn(ROWS, 5, *SHAPE, seed=4), randn(ROWS, 5, seed=5)
    study.noise, study.advantages = noise, advantages
    study.cut_half()
    weights = randn(ROWS, 5, seed=6).abs() * (randn(ROWS, 5, seed=7) > 0)
    output, old, base = study.outputs()
    rows = StepRows(1, study.latents, torch.arange(ROWS), noise, advantages, weights=weights)
    result = study.objective(rows, output, old, base)
    expected = torch.zeros(ROWS, dtype=torch.float64)
    counted = []
    for i in range(5):
        branch = StepRows(1, study.latents, torch.arange(ROWS), noise[:, i : i + 1], advantages[:, i : i + 1])
        expected = expected + weights[:, i] * study.objective(branch, output, old, base).loss
        branch = replace(branch, weights=weights[:, i : i + 1])
        counted.append(study.objective(branch, output, old, base))
    torch.testing.assert_close(result.loss, expected)
    assert int(result.branches) == int((weights > 0).sum()) == sum(int(part.branches) for part in counted)
    assert int(result.clipped) == sum(int(part.clipped) for part in counted) > 0
    torch.testing.assert_close(result.ratios, sum(part.ratios for part in counted))
    torch.testing.assert_close(result.kl, study.kl(output, base).detach())


def test_branches_of_no_weight_or_no_advantage_do_not_count():
    study = Study("grpo", "flow", 1, size=0.05, clip=1e-9)
    output, old, base = study.outputs()
    advantages, weights = study.advantages.clone(), torch.full((ROWS, 1), 0.25, dtype=torch.float64)
    advantages[0], weights[1] = 0.0, 0.0
    rows = replace(study.rows, advantages=advantages, weights=weights)
    result = study.objective(rows, output, old, base)
    assert int(result.branches) == ROWS - 2
    assert result.ratio == pytest.approx(float(study.log_ratio(output, old).detach()[2:].exp().mean()))


@pytest.mark.parametrize(("method", "family"), CASES)
@pytest.mark.parametrize("step", [0, 3])
def test_anchor_rows_carry_the_row_s_penalty_and_nothing_else(method, family, step):
    study = Study(method, family, step, size=0.1)
    output, old, base = study.outputs()
    rows = StepRows(step, study.latents, torch.arange(ROWS))
    assert rows.anchor_only
    assert not study.rows.anchor_only
    result = study.objective(rows, output, old, base)
    torch.testing.assert_close(result.kl, study.kl(output, base).detach())
    held = BETA * study.penalty(output, base) if method in HOLDS_ANCHORS else torch.zeros(ROWS)
    torch.testing.assert_close(result.loss, held, check_dtype=False)
    assert (result.clip_fraction, result.ratio) == (0.0, 1.0)
    weighted = replace(rows, weights=torch.full((ROWS, 1), 0.2, dtype=torch.float64))
    torch.testing.assert_close(study.objective(weighted, output, old, base).loss, 0.2 * result.loss)
    with_guidance = study.objective(study.rows, output, old, base)
    torch.testing.assert_close(with_guidance.kl, result.kl)
    assert not with_guidance.kl.requires_grad


@pytest.mark.parametrize("family", ["flow", "diffusion"])
@pytest.mark.parametrize("step", [0, 3])
def test_the_scale_of_the_kl_can_be_chosen(family, step):
    """By the kernel's KL, by that times Δ on flows, or by the output itself; ``auto`` is the row's own."""
    study = Study("grpo", family, step, size=0.1)
    output, old, base = study.outputs()
    losses = {}
    for scale in ("auto", "transition", "rate", "output"):
        config = RunConfig(noise_level=NOISE, kl_weight=BETA, kl_scale=scale)
        free = Objective(study.method, replace(config, kl_weight=0.0), study.schedule)
        held = Objective(study.method, config, study.schedule)
        losses[scale] = (
            held(study.rows, output, old, base).loss - free(study.rows, output, old, None).loss
        ) / BETA
    torch.testing.assert_close(losses["transition"], study.kl(output, base))
    torch.testing.assert_close(losses["output"], ((output - base) ** 2).mean((1, 2, 3)))
    per_time = study.delta() if family == "flow" else 1.0
    torch.testing.assert_close(losses["rate"], per_time * study.kl(output, base))
    assert torch.equal(losses["auto"], losses["rate"])


def test_a_published_factor_can_take_the_place_of_zeta():
    study = Study("pcpo_flow", "flow", 2)
    config = RunConfig(noise_level=NOISE, interval_weight=4.3152134639895925)
    slope = Objective(study.method, config, study.schedule).weights(2).slope
    assert slope == pytest.approx(-4.3152134639895925 * study.delta())


@pytest.mark.parametrize(
    ("method", "family", "near"),
    [
        ("rsm_first_order_diffusion", "diffusion", "old"),
        ("residual_nabla_db", "diffusion", "old"),
        ("awm", "flow", "average"),
        ("vgg_flow", "flow", ""),
        ("grpo", "flow", ""),
    ],
)
def test_the_pull_is_reported_and_holds_where_the_row_has_one(method, family, near):
    study = Study("grpo", family, 2, size=0.1)
    output, old, base = (part.detach() for part in study.outputs())
    average = old + 0.1 * randn(ROWS, *SHAPE, seed=8)
    first = METHODS.get(method).order == "first"
    rows = replace(study.rows, weights=torch.full((ROWS, 1), 0.2, dtype=torch.float64))
    if first:
        rows = replace(rows, noise=None, advantages=None, guidance=study.noise[:, 0])
    found = []
    for weight in (0.0, 0.7):
        config = RunConfig(noise_level=NOISE, old_weight=weight, kl_weight=0.1)
        objective = Objective(METHODS.get(method), config, study.schedule)
        assert objective.held_to == (near if weight else "")
        found.append(objective(rows, output, old, base, average))
    assert not found[0].pull.any()
    expected = {"old": old, "average": average}.get(near, output)
    distance = ((output - expected) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(found[1].pull, distance, check_dtype=False)
    torch.testing.assert_close(found[1].loss - found[0].loss, 0.7 * 0.2 * distance)
    anchors = StepRows(2, study.latents, torch.arange(ROWS))
    assert not objective(anchors, output, old, base, average).pull.any(), "anchors are held to the base alone"


@pytest.mark.parametrize("scale", ["transition", "rate"])
def test_the_deterministic_last_ddim_step_has_no_kl(scale):
    """Nor are there rows: what ``kl_scale = output`` would hold there is never handed over."""
    study = Study("rsm_zeroth_order_diffusion", "diffusion", STEPS - 1, size=0.1)
    config = RunConfig(noise_level=NOISE, kl_weight=BETA, kl_scale=scale)
    objective = Objective(study.method, config, study.schedule)
    result = objective(StepRows(STEPS - 1, study.latents, torch.arange(ROWS)), *study.outputs())
    assert not result.kl.any()
    assert not result.loss.any()


@pytest.mark.parametrize(("method", "family"), CASES)
def test_without_a_reference_the_kl_is_not_reported(method, family):
    study = Study(method, family, 2, beta=0.0)
    output, old, base = study.outputs()
    assert not study.objective.needs_reference(anchor_only=False)
    alone = study.objective(study.rows, output, old, None)
    assert not alone.kl.any()
    with_base = study.objective(study.rows, output, old, base)
    torch.testing.assert_close(alone.loss, with_base.loss)
    assert bool(with_base.kl.all())


def test_which_methods_need_the_base_model():
    """For the target or for the KL, and only where that holds: on trained rows or on anchors."""
    for method in METHODS.specs():
        free, held = (
            Objective(method, RunConfig(kl_weight=weight), schedule_of(method.families[0]))
            for weight in (0.0, 0.1)
        )
        aims = method.anchor == "ref"
        assert (free.needs_reference(False), free.needs_reference(True)) == (aims, False)
        assert held.needs_reference(False) == (aims or method.kl in ("rows", "all"))
        assert held.needs_reference(True) == (method.kl in ("anchors", "all"))


@pytest.mark.parametrize("kernel", ["auto", "ddim", "pcpo", "pcpo_low"])
def test_the_schedule_mean_is_the_published_constant_of_sd15(kernel):
    """PCPO's constant weight for Stable Diffusion 1.5, 50 steps, η = 1, is DDPM's 0.5169 for every kernel."""
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        set_alpha_to_one=False,
    )
    scheduler.set_timesteps(50)
    cumulative = torch.cat(
        [scheduler.alphas_cumprod[scheduler.timesteps], scheduler.final_alpha_cumprod.reshape(1)]
    )
    for method in ("rsm_zeroth_order_diffusion", "pcpo"):
        objective = Objective(
            METHODS.get(method),
            RunConfig(noise_level=1.0, kernel=kernel),
            diffusion_schedule(cumulative, scheduler.timesteps),
        )
        assert objective.weights(10).slope == pytest.approx(-0.5168997, abs=5e-6)


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_following_the_negative_gradient_raises_the_density_of_good_noise(scale):
    """The sign, end to end: a step down the loss moves μ_θ towards x' when Â > 0 and away when Â < 0."""
    for method, family in (param.values for param in CASES):
        study = Study(method, family, 2, beta=0.0)
        study.advantages = scale * torch.ones_like(study.advantages)
        study.rows = replace(study.rows, advantages=study.advantages)
        slopes = gradient(study.engine(), study.network)
        start = 0
        with torch.no_grad():
            for parameter in study.network.parameters():
                part = slopes[start : start + parameter.numel()].view_as(parameter)
                parameter -= 1e-4 * part / slopes.norm()
                start += parameter.numel()
        output, old, _ = study.outputs()
        assert scale * float(study.log_ratio(output, old).mean().detach()) > 0
