"""Noise levels read from schedulers, conversions of what networks predict, and the tiny decoder."""

import copy
import dataclasses

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from tests.models.tiny_pipelines import save
from trainers.models import MODELS
from trainers.models.base import Conditions, load_model
from trainers.models.levels import (
    diffusion_levels,
    dynamic_shift,
    even_sigmas,
    flow_levels,
    level_by_level,
    noise_from,
    row_times,
    scheduler_problem,
)

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
EULER = diffusers.FlowMatchEulerDiscreteScheduler


@pytest.mark.parametrize(
    "kind",
    ["DDIM", "DDPM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "DPMSolverMultistep"],
)
@pytest.mark.parametrize("steps", [4, 10, 50])
def test_every_usual_scheduler_gives_falling_levels_of_its_own_noise_schedule(kind, steps):
    scheduler = getattr(diffusers, f"{kind}Scheduler")(**BETAS)
    untouched = copy.deepcopy(scheduler.timesteps)
    found = diffusion_levels(scheduler, steps)
    assert np.array_equal(scheduler.timesteps, untouched)  # the pipeline's own
    assert found.steps == steps and found.family == "diffusion"
    assert (found.noise.diff() < 0).all() and found.noise[0] > 0.9 and found.noise[-1] < 0.1
    expected = scheduler.alphas_cumprod[found.timesteps.long()].double().sqrt()
    assert torch.allclose(found.signal[:-1], expected)


def test_a_scheduler_that_repeats_timesteps_gives_ddim_s():
    pndm, ddim = diffusers.PNDMScheduler(**BETAS), diffusers.DDIMScheduler(**BETAS)
    pndm = diffusers.PNDMScheduler.from_config(pndm.config, set_alpha_to_one=False, skip_prk_steps=True)
    ddim = diffusers.DDIMScheduler.from_config(pndm.config)
    assert torch.equal(diffusion_levels(pndm, 20).noise, diffusion_levels(ddim, 20).noise)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_noise_is_found_in_every_prediction(kind):
    scheduler = diffusers.DDIMScheduler(**BETAS, prediction_type=kind)
    clean, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    alpha = scheduler.alphas_cumprod[500]
    state = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    times = torch.tensor([500, 500])
    predicted = {
        "epsilon": noise,
        "v_prediction": scheduler.get_velocity(clean, noise, times)
        if hasattr(scheduler, "get_velocity")
        else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean,
        "sample": clean,
    }[kind]
    assert torch.allclose(noise_from(scheduler, 500.0, state, predicted), noise, atol=1e-5)
    same = noise_from(scheduler, times.double(), state, predicted)
    assert torch.allclose(same, noise, atol=1e-5)
    one, other = (noise_from(scheduler, time, state, predicted) for time in (500.0, 20.0))
    mixed = noise_from(scheduler, torch.tensor([500.0, 20.0]), state, predicted)
    assert torch.allclose(mixed, torch.stack([one[0], other[1]]), atol=1e-6)


@pytest.mark.parametrize(("dtype", "expected"), [(torch.int64, [499, 499]), (torch.float32, [499.5, 499.5])])
def test_times_of_rows_are_whole_where_a_network_counts_them(dtype, expected):
    latents = torch.zeros(2, 3, 4, 4)
    for given in (499.5, torch.tensor([499.5, 499.5], dtype=torch.float64)):
        times = row_times(given, latents, dtype)
        assert times.dtype == dtype and times.tolist() == expected


def test_a_model_that_takes_one_time_at_once_is_asked_level_by_level():
    asked = []

    def predict(latents, time, rows):
        asked.append((time, len(latents)))
        return latents * time + rows.embeds[:, :, :1, None]

    rows = Conditions(torch.arange(4.0).view(4, 1, 1), None, torch.zeros(1, 1, 1), None)
    latents = torch.arange(4.0).view(4, 1, 1, 1)
    found = level_by_level(predict, latents, torch.tensor([5.0, 5.0, 2.0, 5.0]), rows)
    assert asked == [(5.0, 2), (2.0, 1), (5.0, 1)]
    assert found.flatten().tolist() == [0.0, 6.0, 6.0, 18.0]


def test_a_dynamic_shift_is_the_pipeline_s():
    scheduler = EULER(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
    assert dynamic_shift(scheduler, 1024) == pytest.approx(calculate_shift(1024))
    assert dynamic_shift(EULER(shift=3.0), 1024) is None
    small, large = (
        flow_levels(scheduler, 8, even_sigmas(8), dynamic_shift(scheduler, n)) for n in (64, 4096)
    )
    assert (large.noise[1:-1] > small.noise[1:-1]).all()  # more tokens, more time at high noise


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_static_shift_follows_its_formula(shift):
    found = flow_levels(EULER(shift=shift), 5, even_sigmas(5))
    plain = torch.linspace(1.0, 0.2, 5).double()
    assert torch.allclose(found.noise[:-1], shift * plain / (1 + (shift - 1) * plain), atol=1e-6)
    assert found.noise[-1] == 0 and torch.allclose(found.timesteps, 1000 * found.noise[:-1])


@pytest.mark.parametrize(
    ("scheduler", "kind", "sentence"),
    [
        (EULER(), "diffusion", "does not fit its pipeline class"),
        (diffusers.DDIMScheduler(), "flow", "does not fit its pipeline class"),
        (diffusers.DDIMScheduler(rescale_betas_zero_snr=True), "diffusion", "starts from zero signal"),
        (diffusers.DDIMScheduler(), "diffusion", None),
        (EULER(), "flow", None),
        (
            diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
            "flow",
            None,
        ),
    ],
)
def test_a_scheduler_that_does_not_fit_is_told(scheduler, kind, sentence):
    problem = scheduler_problem(scheduler, kind)
    assert problem is None if sentence is None else sentence in problem


def test_the_tiny_autoencoder_decodes_training_pictures_and_nothing_else(tmp_path):
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    )
    tiny.save_pretrained(tmp_path / "tiny")
    spec = MODELS.get(str(save("tiny-sd15", tmp_path / "model")))
    spec = dataclasses.replace(spec, call={**spec.call, "num_inference_steps": 2})
    plain = load_model(spec)
    model = load_model(dataclasses.replace(spec, decoder="tiny", tiny_vae=str(tmp_path / "tiny")))
    model.use_decoder_precision(torch.float32)
    latents = torch.randn(2, *model.latent_shape, requires_grad=True)
    pictures = model.decode(latents)
    assert pictures.shape == plain.decode(latents).shape
    with torch.no_grad():
        expected = (tiny.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(pictures, expected, atol=1e-5)
    pictures.sum().backward()
    assert latents.grad.abs().sum() > 0
    assert torch.equal(model.sample(["a"], [1]), plain.sample(["a"], [1]))
