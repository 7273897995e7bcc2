"""Memory that a run will take: against whole runs that were measured, and against what presets ask for."""

import pytest

from trainers.errors import InputError
from trainers.memory_estimate import device_parts, estimate_memory, host_parts
from trainers.methods import METHODS
from trainers.models import EMBEDDED, MODELS
from trainers.models.configured import configured
from trainers.models.memory import smallest_preset
from trainers.presets import build_config, default_config

SMALL = {
    "rollout_steps": 4,
    "branches": "2,2",
    "prompts_per_update": 4,
    "updates_per_rollout": 1,
    "eval_prompts": 4,
    "eval_samples_per_prompt": 2,
}
TWO = {"rollout_steps": 2, "group_size": 8}
ZEROTH, FIRST, FLOW, DIFFUSION = "rsm_zeroth_order", "rsm_first_order_flow", "tiny-flow", "tiny-diffusion"
# The largest resident size of the whole process in 2**20 bytes, two threads, float32, one update.
MEASURED = [
    (646, FLOW, f"{ZEROTH}_flow", {}),
    (752, FLOW, f"{ZEROTH}_flow", {"prompts_per_update": 64}),
    (1602, FLOW, f"{ZEROTH}_flow", {"prompts_per_update": 256, "micro_batch": 1024}),
    (798, FLOW, f"{ZEROTH}_flow", {"prompts_per_update": 1024, "micro_batch": 64}),
    (1683, FLOW, f"{ZEROTH}_flow", {"lora_rank": 1024}),
    (1215, FLOW, f"{ZEROTH}_flow", {"eval_prompts": 256, "eval_batch": 512}),
    (1110, FLOW, f"{ZEROTH}_flow", {"eval_prompts": 512, "eval_samples_per_prompt": 8, "eval_batch": 64}),
    (1659, FLOW, f"{ZEROTH}_flow", {"own": 25000}),
    (965, FLOW, "grpo", {"prompts_per_update": 64, "micro_batch": 128, **TWO}),
    (4212, FLOW, "grpo", {"prompts_per_update": 256, "micro_batch": 2048, **TWO}),
    (861, FLOW, "grpo", {"prompts_per_update": 512, "micro_batch": 64, **TWO, "group_size": 16}),
    (4000, DIFFUSION, "grpo", {"prompts_per_update": 256, "micro_batch": 2048, **TWO}),
    (1680, FLOW, "sqdf", {"prompts_per_update": 128, "micro_batch": 128}),
    (1798, FLOW, "sqdf", {"prompts_per_update": 128, "micro_batch": 128, "lookahead_steps": 3}),
    (1231, DIFFUSION, "sqdf", {"prompts_per_update": 64, "micro_batch": 64}),
    (1846, FLOW, FIRST, {"prompts_per_update": 512, "micro_batch": 512}),
    (1288, FLOW, "residual_nabla_db", {"prompts_per_update": 64, "micro_batch": 64, "replay_size": 100000}),
    (1218, DIFFUSION, f"{ZEROTH}_diffusion", {"lora_rank": 512}),
    (970, DIFFUSION, f"{ZEROTH}_diffusion", {"own": 5000}),
]  # fmt: skip


@pytest.mark.parametrize(("measured", "model", "estimator", "settings"), MEASURED)
def test_an_estimate_is_near_what_was_measured_and_rarely_below(measured, model, estimator, settings):
    settings = dict(settings)
    prompts = settings.pop("own", 0)
    config = build_config(model, estimator, "colorfulness", SMALL | settings)
    assert 0.9 * measured <= estimate_memory(config, prompts).total <= 1.9 * measured


@pytest.mark.parametrize(
    ("setting", "settings"),
    [
        ("micro_batch", {"micro_batch": 65536, "prompts_per_update": 4096}),
        ("eval_batch", {"eval_batch": 4096, "eval_prompts": 2048}),
        ("eval_prompts", {"eval_prompts": 100000, "eval_samples_per_prompt": 64}),
        ("lora_rank", {"lora_rank": 1024}),
        ("prompts_per_update", {"prompts_per_update": 4096, "branches": "256,256,256,256"}),
    ],
)
def test_the_setting_that_takes_most_is_named(setting, settings):
    estimate = estimate_memory(build_config(FLOW, f"{ZEROTH}_flow", "colorfulness", SMALL | settings))
    assert estimate.largest() == setting and estimate.parts[setting] > 0.5 * (estimate.total - estimate.base)


def test_a_lookahead_of_many_steps_takes_more():
    def total(steps):
        values = SMALL | {"rollout_steps": 20, "prompts_per_update": 256, "lookahead_steps": steps}
        return estimate_memory(build_config(FLOW, "sqdf", "colorfulness", values)).total

    assert total(1) < total(5) < total(20) == total(200)


@pytest.mark.parametrize("model", MODELS.names())
def test_what_presets_ask_for_fits_the_smallest_machine_of_their_model(model):
    for estimator in METHODS.names():
        try:
            config = build_config(model, estimator, "colorfulness", {})
        except InputError:
            continue
        if model in EMBEDDED:
            assert estimate_memory(config).total < 2048, estimator
            continue
        spec = configured(config)
        gpu = smallest_preset(spec) * 1e9 / 2**20
        assert sum(device_parts(config, spec).values()) < gpu, estimator
        assert sum(host_parts(config, spec).values()) < 16384, estimator


def test_the_usual_run_of_a_newcomer_is_about_what_was_measured_once():
    assert 800 < estimate_memory(default_config(FLOW, f"{ZEROTH}_flow", "shapes")).total < 1500
