"""Gradient identities of the zeroth-order methods, on a random float64 network.

Three losses are compared for each method: the engine's (`Objective` on rows), the method's own published
loss, written here from log-densities of the published kernels, and the plain squared loss of the project

    W1·‖o_θ − (o_old + γG)‖² + β·λ‖o_θ − o_ref‖²,    G = (σ/k)·Â·ε,    λ = k²/(2σ²).

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
from tests.zeroth_order_study import BETA, CASES, KERNEL, MATCHING, ROWS, TRAINED, Study
from trainers.config import RunConfig
from trainers.core.schedule import diffusion_schedule
from trainers.estimators.contract import StepRows
from trainers.methods import METHODS
from trainers.objective import Objective


@pytest.mark.parametrize(("method", "family"), CASES)
@pytest.mark.parametrize("step", TRAINED)
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
@pytest.mark.parametrize("step", [0, 3])
def test_anchor_rows_carry_the_exact_kl_and_nothing_else(method, family, step):
    study = Study(method, family, step, size=0.1)
    output, old, base = study.outputs()
    rows = StepRows(step, study.latents, torch.arange(ROWS))
    assert rows.anchor_only
    assert not study.rows.anchor_only
    result = study.objective(rows, output, old, base)
    torch.testing.assert_close(result.kl, study.kl(output, base).detach())
    torch.testing.assert_close(result.loss, BETA * study.kl(output, base))
    assert (result.clip_fraction, result.ratio) == (0.0, 1.0)
    with_guidance = study.objective(study.rows, output, old, base)
    torch.testing.assert_close(with_guidance.kl, result.kl)
    assert not with_guidance.kl.requires_grad


def test_the_deterministic_last_ddim_step_has_no_kl():
    study = Study("rsm_zeroth_order_diffusion", "diffusion", STEPS - 1, size=0.1)
    result = study.objective(StepRows(STEPS - 1, study.latents, torch.arange(ROWS)), *study.outputs())
    assert not result.kl.any()
    assert not result.loss.any()


@pytest.mark.parametrize(("method", "family"), CASES)
def test_without_a_reference_the_kl_is_not_reported(method, family):
    study = Study(method, family, 2, beta=0.0)
    output, old, base = study.outputs()
    assert not study.objective.needs_reference
    alone = study.objective(study.rows, output, old, None)
    assert not alone.kl.any()
    with_base = study.objective(study.rows, output, old, base)
    torch.testing.assert_close(alone.loss, with_base.loss)
    assert bool(with_base.kl.all())


def test_which_methods_need_the_base_model():
    needs = {
        (method.name, weight): Objective(
            method, RunConfig(kl_weight=weight), schedule_of(method.families[0])
        ).needs_reference
        for method in METHODS.specs()
        for weight in (0.0, 0.1)
    }
    for method in METHODS.specs():
        assert needs[method.name, 0.0] == (method.anchor == "ref")
        assert needs[method.name, 0.1]


def test_the_schedule_mean_is_the_published_constant_of_sd15():
    """PCPO's constant weight for Stable Diffusion 1.5, 50 steps, η = 1, is 0.5169."""
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
    objective = Objective(
        METHODS.get("rsm_zeroth_order_diffusion"),
        RunConfig(noise_level=1.0),
        diffusion_schedule(cumulative, scheduler.timesteps),
    )
    assert objective.weights(10).slope == pytest.approx(-0.5169, abs=5e-5)


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
