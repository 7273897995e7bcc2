"""Memory presets, random weights and the table itself."""

import dataclasses

import pytest
import torch
import transformers as tf

from trainers.config import FIELDS
from trainers.errors import InputError
from trainers.models import EMBEDDED, MODELS
from trainers.models.configured import configured
from trainers.models.families import FAMILIES
from trainers.models.memory import (
    COSTS,
    DECODED,
    ENCODING_GB,
    EVERYTHING,
    PRESETS,
    RESERVE_GB,
    USABLE,
    Footprint,
    footprint,
    footprint_on,
    smallest_preset,
    weights_gb,
)
from trainers.models.random_weights import random_pipeline, random_spec
from trainers.models.sizes import FULL
from trainers.models.tiny_sizes import TINY
from trainers.presets import build_config, default_config
from trainers.samplers.families import FAMILY_KERNELS

ENCODED = ("beside", "alone", "in turn")
LARGE = [spec for spec in MODELS if not spec.embedded]


@pytest.mark.parametrize("spec", LARGE, ids=lambda spec: spec.name)
def test_a_preset_fits_and_a_larger_gpu_never_recomputes_or_shares_more(spec):
    smallest = smallest_preset(spec)
    assert smallest in PRESETS
    rows = []
    for size in PRESETS[PRESETS.index(smallest) :]:
        found = footprint(spec, size)
        copies = 1 if found.one_network else 3
        costs = COSTS[spec.measured]
        row = costs.recomputed_gb if found.gradient_checkpointing else costs.kept_gb
        doubled = 1 if spec.guidance == "distilled" else 2
        side = spec.call["height"] / MODELS.get(spec.measured).call["height"]
        needed = weights_gb(spec, copies) + RESERVE_GB + found.micro_batch * row * doubled * side**2
        assert needed <= size * USABLE + 1e-9
        rows.append((copies, found.gradient_checkpointing, found.micro_batch))
        assert found.offload and found.encoding in ENCODED
        on_device = sum(costs.encoders) if found.encoding != "in turn" else max(costs.encoders)
        beside = weights_gb(spec, 1) + RESERVE_GB if found.encoding == "beside" else ENCODING_GB
        assert 2.0 * on_device + beside <= size * USABLE + 1e-9
        assert ENCODED.index(found.encoding) <= (0 if size >= 80 else 2)
    speeds = [(copies, not recomputed) for copies, recomputed, _ in rows]
    assert speeds == sorted(speeds)


def test_the_named_sizes_are_those_of_the_presets():
    """What the project promises: SD3.5-medium in 16 and 24 GB, SD1.5 in 12, FLUX in 48."""
    names = {spec.name: smallest_preset(spec) for spec in LARGE}
    assert names["sd15"] == 12 and names["sd35-medium"] <= 16 and names["flux-dev"] == 48


def test_the_readme_names_every_checkpoint_and_its_smallest_preset(repository):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    for spec in LARGE:
        gate = " (gated)" if spec.gated else ""
        side, smallest = spec.call["height"], smallest_preset(spec)
        assert f"| `{spec.name}` | `{spec.location}`{gate} | {side} | {smallest} GB |" in readme
    assert all(f"`{family}`" in readme for family in FAMILIES)


def test_embedded_models_and_cpus_are_left_alone():
    assert all(footprint_on(MODELS.get(name), "cuda") == EVERYTHING for name in EMBEDDED)
    assert footprint_on(MODELS.get("sd15"), "cpu") == EVERYTHING
    with pytest.raises(InputError, match="take 24 GB and the GPU has 12"):
        footprint_on(dataclasses.replace(MODELS.get("flux-dev"), memory="12"), "cpu")


@pytest.mark.parametrize("setting", ["auto", "on", "off"])
def test_activations_are_recomputed_as_a_run_asks_else_where_memory_wants_it(setting):
    config = build_config("sd35-medium", "grpo", "brightness", {"gradient_checkpointing": setting})
    spec = configured(config)
    small, large = footprint(spec, 16), footprint(spec, 80)
    assert (small.gradient_checkpointing, large.gradient_checkpointing) == {
        "auto": (True, False), "on": (True, True), "off": (False, False)
    }[setting]  # fmt: skip
    if setting == "off":  # then fewer rows pass at once
        assert small.micro_batch < footprint(dataclasses.replace(spec, checkpointing="on"), 16).micro_batch
    assert footprint_on(spec, "cpu") == Footprint(gradient_checkpointing=setting == "on")


def test_reward_gradients_through_a_large_decoder_take_fewer_rows():
    spec = MODELS.get("sd35-medium")
    own = dataclasses.replace(spec, decodes_gradients=True)
    tiny = dataclasses.replace(own, decoder="tiny")
    rows = [footprint(one, 24).decode_batch for one in (own, tiny)]
    assert rows[0] < rows[1]


@pytest.mark.parametrize("size", [16, 24, 48, 80])
def test_pictures_decoded_at_once_fit_beside_the_networks(size):
    spec = MODELS.get("sdxl")
    found = footprint(spec, size)
    weights = weights_gb(spec, 1 if found.one_network else 3)
    picture = DECODED * COSTS["sdxl"].decoder_gb
    assert weights + RESERVE_GB + found.decode_batch * picture <= size * USABLE
    assert found.slicing == (found.decode_batch < 8)


def test_the_networks_of_rewards_leave_less_room():
    config = build_config("sd35-medium", "grpo", "pick_score:0.5,hps_v2:0.5", {"others": "clip_score"})
    spec = configured(config)
    assert spec.reward_bytes == pytest.approx(7.6e9, rel=0.01)  # three CLIPs
    assert configured(default_config("sd35-medium", "grpo", "brightness")).reward_bytes == 0.0
    alone, beside = footprint(spec, 24), footprint(spec, 24, spec.reward_bytes)
    assert beside.one_network and not alone.one_network
    assert footprint_on(dataclasses.replace(spec, memory="24"), "cpu") == beside


def text_encoders():
    """The text encoders of the checkpoints: class, config, and what their table entry says."""
    clip = {"intermediate_size": 5120, "projection_dim": 1280}
    large = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    big = clip | {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20}
    huge = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
    t5 = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    qwen = {"vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36}
    gemma = {"vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26}
    return {
        "clip-l": (tf.CLIPTextModel, tf.CLIPTextConfig(**large), COSTS["sdxl"].encoders[0]),
        "clip-g": (tf.CLIPTextModelWithProjection, tf.CLIPTextConfig(**big), COSTS["sdxl"].encoders[1]),
        "clip-h": (tf.CLIPTextModel, tf.CLIPTextConfig(**huge), COSTS["sd15"].encoders[0]),
        "t5": (
            tf.T5EncoderModel,
            tf.T5Config(**t5, feed_forward_proj="gated-gelu"),
            COSTS["flux-dev"].encoders[1],
        ),
        "qwen": (
            tf.Qwen3Model,
            tf.Qwen3Config(**qwen, num_attention_heads=32, num_key_value_heads=8, head_dim=128),
            COSTS["z-image"].encoders[0],
        ),
        "gemma": (
            tf.Gemma2Model,
            tf.Gemma2Config(**gemma, num_attention_heads=8, num_key_value_heads=4, head_dim=256),
            COSTS["sana"].encoders[0],
        ),
    }


@pytest.mark.parametrize("name", ["clip-l", "clip-g", "clip-h", "t5", "qwen", "gemma"])
def test_text_encoders_have_the_parameters_of_the_table(name):
    kind, config, billions = text_encoders()[name]
    with torch.device("meta"):
        encoder = kind(config)
    assert sum(part.numel() for part in encoder.parameters()) / 1e9 == pytest.approx(billions, abs=0.012)


def test_a_run_s_choices_reach_its_model():
    settings = {"resolution": 768, "guidance_scale": 2.5, "memory": "48", "decoder": "tiny"}
    config = build_config("flux-dev", "rsm_first_order_flow", "brightness", settings)
    spec = configured(config)
    assert (spec.call["height"], spec.call["width"], spec.call["guidance_scale"]) == (768, 768, 2.5)
    assert (spec.memory, spec.decoder, spec.decodes_gradients) == ("48", "tiny", True)
    plain = configured(default_config("sd35-medium", "grpo", "brightness"))
    assert plain.call == MODELS.get("sd35-medium").call and not plain.decodes_gradients


@pytest.mark.parametrize(
    ("model", "settings", "sentence"),
    [
        ("sd35-medium", {"resolution": 256}, "'resolution' must be 0 or a multiple of 16 from 384 to 1440"),
        ("sd35-medium", {"resolution": 520}, "not 520"),
        ("tiny-flow", {"resolution": 128}, "'resolution' must be 0 or 64 for 'tiny-flow', not 128."),
        ("tiny-flow", {"kernel": "ddim"}, "'kernel' must be auto or flow_sde or flow_cps or flow_constant"),
        ("tiny-flow", {"kernel": "pcpo_low"}, "for a flow model, not 'pcpo_low'."),
        ("sd35-medium", {"kernel": "pcpo"}, "for a flow model, not 'pcpo'."),
        ("sana", {"decoder": "tiny"}, "there is no tiny autoencoder of its latents"),
        ("sana", {"memory": "20"}, "'memory' must be one of auto, 12, 16, 24, 48, 80"),
    ],
)
def test_what_a_model_cannot_follow_is_refused(model, settings, sentence):
    with pytest.raises(InputError) as caught:
        build_config(model, "rsm_zeroth_order_flow", "brightness", settings)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("kernel", FAMILY_KERNELS["flow"])
@pytest.mark.parametrize("model", ["tiny-diffusion", "sd15", "sdxl", "pixart-sigma"])
def test_a_flow_s_kernel_is_refused_by_name_for_a_diffusion_model(model, kernel):
    with pytest.raises(InputError, match=f"'kernel' must be .* for a diffusion model, not '{kernel}'"):
        build_config(model, "rsm_zeroth_order_diffusion", "brightness", {"kernel": kernel})


def test_every_kernel_that_can_be_asked_for_belongs_to_one_family():
    named = [kernel for names in FAMILY_KERNELS.values() for kernel in names]
    assert sorted(["auto", *named]) == sorted(FIELDS["kernel"].metadata["choices"])


def test_every_family_has_a_checkpoint_a_full_and_a_tiny_size():
    classes = set(FAMILIES)
    assert {spec.pipeline_class for spec in LARGE} == classes
    assert {size.pipeline_class for size in FULL.values()} == classes
    assert {size.pipeline_class for size in TINY.values()} == classes
    assert set(COSTS) == set(FULL) and {spec.measured for spec in LARGE} <= set(COSTS)


@pytest.mark.parametrize("name", FULL)
def test_full_sizes_have_the_parameters_of_their_checkpoints(name):
    """On the meta device: the architecture without a byte of weights."""
    model = random_pipeline(name, "meta", torch.float32)
    parameters = sum(part.numel() for part in model.network.parameters()) / 1e9
    assert parameters == pytest.approx(MODELS.get(name).parameters, rel=0.01)
    assert parameters == pytest.approx(COSTS[name].parameters, abs=0.006)


@pytest.mark.parametrize("name", TINY)
def test_random_weights_sample_and_are_the_same_each_time(name):
    one, other = (random_pipeline(name) for _ in range(2))
    assert one.spec.name == f"random:{name}" and one.prompt_problems(["a"]) == []
    for first, second in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(first, second)
    pictures = one.sample(["a", "b"], [1, 2])
    height, width = one.picture_size
    assert pictures.shape == (2, 3, height, width) and torch.isfinite(pictures).all()
    assert torch.equal(pictures, other.sample(["a", "b"], [1, 2]))


def test_forward_process_methods_train_stable_diffusion_3_without_guidance():
    for method in ("awm", "diffusion_nft"):
        scales = [
            default_config(name, method, "brightness").guidance_scale for name in ("sd35-medium", "flux-dev")
        ]
        assert scales == [1.0, None], "FLUX's scale is an input of its network, not guidance"
    assert default_config("sd35-medium", "grpo", "brightness").guidance_scale is None


def test_unknown_random_weights_name_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'sd35-medium'"):
        random_spec("sd35-medum")
