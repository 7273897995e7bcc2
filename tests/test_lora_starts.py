"""A run begins from LoRAs as other tools leave them: their effect is kept, or a sentence says why not."""

import json
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tests.models.tiny_pipelines import save
from trainers.adapter import load_adapter, save_adapter
from trainers.adapter_file import PEFT_CONFIG, PEFT_WEIGHTS, WEIGHTS
from trainers.adapter_start import checked_start, shape_settings
from trainers.cli import main
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.lora_export import export_lora
from trainers.machine import quiet_libraries
from trainers.models import MODELS
from trainers.models.base import load_model
from trainers.opening import start
from trainers.policy import Policy
from trainers.presets import build_config
from trainers.stored_lora import read_lora

RANK, ALPHA = 4, 8.0
_models = {}


@pytest.fixture
def model_of(tmp_path_factory):
    quiet_libraries()

    def loaded(name):
        if name not in _models:
            _models[name] = load_model(MODELS.get(str(save(name, tmp_path_factory.mktemp("models") / name))))
        return _models[name]

    return loaded


def policy(model, rank=RANK, alpha=ALPHA, seed=0):
    made = Policy(model, rank, alpha, seed, torch.float32, None, 8)
    return made


def trained(model, **shape):
    made = policy(model, **shape)
    generator = torch.Generator().manual_seed(1)
    made.load_state({n: torch.randn(t.shape, generator=generator) * 0.1 for n, t in made.state().items()})
    return made


def effect(made, only=None):
    """What a policy's LoRA adds to each weight."""
    state, scale = made.state(), made.alpha / made.rank
    modules = sorted(name.removesuffix(".lora_A.weight") for name in state if ".lora_A" in name)
    return {
        module: scale
        * state[f"{module}.lora_B.weight"].flatten(1)
        @ state[f"{module}.lora_A.weight"].flatten(1)
        for module in modules
        if only is None or module in only
    }


def named(made, prefix="", down="lora_A", up="lora_B", join=".", flat=False):
    """A policy's tensors under other names."""
    found = {}
    for name, value in made.state().items():
        module, side = name.rsplit(".lora_", 1)
        module = module.replace(".", "_") if flat else module
        found[f"{prefix}{module}{join}{down if side.startswith('A') else up}.weight"] = value
    return found


def begun(model, place, rank=RANK, alpha=ALPHA):
    other = policy(model, rank, alpha, seed=5)
    load_adapter(other, read_lora(place).file)
    return other


def same(one, other):
    assert one.keys() == other.keys()
    for module in one:
        torch.testing.assert_close(one[module], other[module], rtol=1e-4, atol=1e-6)


def network(model):
    return f"{model.network_name}."


def plain(made, path):
    save_file(named(made, network(made.model)), path / WEIGHTS)
    return RANK  # by diffusers' convention, which every tool follows where nothing says


def told(made, path):
    record = {f"{network(made.model)}lora_alpha": ALPHA, f"{network(made.model)}r": RANK}
    save_file(named(made, network(made.model)), path / WEIGHTS, {"lora_adapter_metadata": json.dumps(record)})


def early(made, path):
    save_file(named(made, network(made.model), "lora.down", "lora.up"), path / WEIGHTS)
    return RANK


def peft_folder(made, path):
    save_file(named(made, "base_model.model."), path / PEFT_WEIGHTS)
    (path / PEFT_CONFIG).write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA, "peft_type": "LORA"}))


def peft_by_its_root(made, path):
    record = {"r": RANK, "lora_alpha": ALPHA / math.sqrt(RANK), "use_rslora": True}
    (path / "lora").mkdir()
    save_file(
        named(made, "base_model.model.", "lora_A.default", "lora_B.default"), path / "lora" / PEFT_WEIGHTS
    )
    (path / "lora" / PEFT_CONFIG).write_text(json.dumps(record))


def bare(made, path):
    save_file(
        named(made),
        path / "my lora.safetensors",
        {"lora_adapter_metadata": json.dumps({"lora_alpha": ALPHA})},
    )


def kohya(made, path):
    tensors = named(made, "lora_unet_", "lora_down", "lora_up", flat=True)
    for name in [*tensors]:
        tensors[f"{name.split('.')[0]}.alpha"] = torch.tensor(ALPHA).to(torch.bfloat16)
    save_file(tensors, path / "last.safetensors")


def other_prefix(made, path):
    save_file(named(made, "diffusion_model."), path / "comfy.safetensors")
    return RANK


FORMS = (plain, told, early, peft_folder, peft_by_its_root, bare, kohya, other_prefix)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("name", ["tiny-sd15", "tiny-sdxl", "tiny-sd3", "tiny-flux", "tiny-pixart"])
def test_every_form_begins_with_the_effect_that_it_had(name, form, model_of, tmp_path):
    model = model_of(name)
    made = trained(model)
    alpha = form(made, tmp_path) or ALPHA
    had = {module: change * alpha / ALPHA for module, change in effect(made).items()}
    for own in (ALPHA, 1.5):
        same(effect(begun(model, tmp_path, alpha=own)), had)
    assert shape_settings(str(tmp_path)) == {"lora_rank": RANK}
    config = RunConfig(model=model.spec.name, start_adapter=str(tmp_path), lora_rank=RANK)
    assert checked_start(config) == read_lora(tmp_path).file


def test_the_names_of_old_attention_processors_are_read(model_of, tmp_path):
    model = model_of("tiny-sd15")
    made = trained(model)
    tensors = {}
    for name, value in named(made, "unet.", "lora.down", "lora.up").items():
        module, _, side = name.partition(".lora.")
        stem, _, leaf = (
            module.removesuffix(".0").rpartition(".") if "to_out" in module else module.rpartition(".")
        )
        tensors[f"{stem}.processor.{leaf}_lora.{side}"] = value
    save_file(tensors, tmp_path / WEIGHTS)
    same(effect(begun(model, tmp_path, alpha=RANK)), {n: c * RANK / ALPHA for n, c in effect(made).items()})


@pytest.mark.parametrize("name", ["tiny-sd15", "tiny-sdxl"])
def test_what_is_exported_for_other_tools_comes_back_the_same(name, model_of, tmp_path):
    made = trained(model_of(name))
    save_adapter(made, tmp_path / "run" / "adapter")
    export_lora(tmp_path / "run", tmp_path / "kohya.safetensors")
    for place in (tmp_path / "run", tmp_path / "kohya.safetensors"):
        same(effect(begun(made.model, place, alpha=2.0)), effect(made))


def test_kohya_s_own_block_names_of_xl_are_translated_by_diffusers(model_of, tmp_path):
    made = trained(model_of("tiny-sdxl"))
    blocks = {"down_blocks_1_attentions_0": "input_blocks_3_1", "mid_block_attentions_0": "middle_block_1"}
    blocks |= {f"up_blocks_0_attentions_{n}": f"output_blocks_{n}_1" for n in (0, 1)}
    tensors = {}
    for name, value in named(made, "lora_unet_", "lora_down", "lora_up", flat=True).items():
        for ours, theirs in blocks.items():
            name = name.replace(ours, theirs)
        tensors[name], tensors[f"{name.split('.')[0]}.alpha"] = value, torch.tensor(ALPHA)
    assert any("output_blocks_1_1" in name for name in tensors)
    save_file(tensors, tmp_path / "xl.safetensors")
    same(effect(begun(made.model, tmp_path, alpha=3.0)), effect(made))


def test_kohya_s_joined_matrices_of_flux_are_taken_apart_by_diffusers(model_of, tmp_path):
    """One matrix A for queries, keys and values; what the file does not change begins as in any run."""
    model = model_of("tiny-flux")
    width = model.network.config.attention_head_dim * model.network.config.num_attention_heads
    parts = {"img_attn_qkv": 3, "img_attn_proj": 1, "txt_attn_qkv": 3, "txt_attn_proj": 1}
    generator, tensors = torch.Generator().manual_seed(2), {}
    for part, count in parts.items():
        stem = f"lora_unet_double_blocks_0_{part}"
        tensors[f"{stem}.lora_down.weight"] = torch.randn((RANK, width), generator=generator)
        tensors[f"{stem}.lora_up.weight"] = torch.randn((count * width, RANK), generator=generator)
        tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    save_file(tensors, tmp_path / "flux.safetensors")
    found = effect(begun(model, tmp_path))
    whole = (
        2.0
        / RANK
        * (
            tensors["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"]
            @ tensors["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"]
        )
    )
    for number, target in enumerate(("to_q", "to_k", "to_v")):
        part = found[f"transformer_blocks.0.attn.{target}"]
        torch.testing.assert_close(part, whole[number * width : (number + 1) * width], rtol=1e-4, atol=1e-5)
    assert found["single_transformer_blocks.0.attn.to_q"].abs().max() == 0


def test_a_peft_folder_that_peft_itself_wrote_begins_a_run(model_of, tmp_path):
    model = model_of("tiny-sd3")
    wrapped = get_peft_model(
        load_model(model.spec).network,
        LoraConfig(r=2, lora_alpha=6, target_modules=["to_q", "to_v"], init_lora_weights=False),
    )
    wrapped.save_pretrained(tmp_path / "checkpoint-120" / "lora")
    config = build_config(
        model.spec.name,
        "grpo",
        "brightness",
        shape_settings(str(tmp_path / "checkpoint-120")) | {"threads": 1},
    )
    assert config.lora_rank == 2
    folder = start(
        tmp_path / "run", RunConfig(**{**vars(config), "start_adapter": str(tmp_path / "checkpoint-120")})
    )
    assert (folder.start / PEFT_CONFIG).is_file(), "the copy knows its alpha as well"
    found = effect(begun(model, folder.start, rank=2, alpha=1.0))
    stored = load_file(tmp_path / "checkpoint-120" / "lora" / PEFT_WEIGHTS)
    stem = "base_model.model.transformer_blocks.0.attn.to_q"
    product = 3.0 * stored[f"{stem}.lora_B.weight"] @ stored[f"{stem}.lora_A.weight"]
    torch.testing.assert_close(found["transformer_blocks.0.attn.to_q"], product)
    assert found["transformer_blocks.0.attn.to_k"].abs().max() == 0


# -- what cannot be begun from -----------------------------------------------------------------------

Q = "transformer_blocks.0.attn.to_q"
PAIR = {f"transformer.{Q}.lora_A.weight": (4, 16), f"transformer.{Q}.lora_B.weight": (16, 4)}
DOWN, UP = PAIR
REFUSED = {
    "DoRA": (PAIR | {f"transformer.{Q}.lora_magnitude_vector.weight": (16,)}, {}, "is DoRA"),
    "kohya's DoRA": (
        {"lora_unet_a.lora_down.weight": (4, 4), "lora_unet_a.dora_scale": (4, 1)},
        {},
        "is DoRA",
    ),
    "DoRA by its settings": (PAIR, {"transformer.use_dora": True, "transformer.lora_alpha": 4}, "is DoRA"),
    "LoHa": ({"lora_unet_a.hada_w1_a": (4, 4)}, {}, "is LyCORIS"),
    "LoKr": ({"lora_unet_a.lokr_w1": (4, 4)}, {}, "is LyCORIS"),
    "a middle matrix": ({"lora_unet_a.lora_mid.weight": (4, 4, 3, 3)}, {}, "with a middle matrix"),
    "whole weights": (PAIR | {"transformer.norm.diff": (4,)}, {}, "is whole weights beside LoRA"),
    "biases": (PAIR | {f"transformer.{Q}.lora_B.bias": (16,)}, {}, "is LoRA of biases"),
    "several ranks": (
        PAIR | {DOWN.replace("to_q", "to_k"): (8, 16), UP.replace("to_q", "to_k"): (16, 8)},
        {},
        "has several ranks (4, 8)",
    ),
    "half a pair": ({DOWN: (4, 16)}, {}, "has only one of the two matrices"),
    "a text encoder": (PAIR | {"text_encoder.x.lora_A.weight": (4, 4)}, {}, "changes a text encoder as well"),
    "kohya's text encoder": ({"lora_te1_x.lora_down.weight": (4, 4)}, {}, "changes a text encoder as well"),
    "no LoRA at all": ({"transformer.norm.weight": (4,)}, {}, "which is no part of a LoRA"),
    "another network": (
        {"unet.a.lora_A.weight": (4, 4), "unet.a.lora_B.weight": (4, 4)},
        {},
        "is one of a unet, but",
    ),
    "another module": (
        {"transformer.x.lora_A.weight": (4, 16), "transformer.x.lora_B.weight": (16, 4)},
        {},
        "changes 'x', which this base model does not have",
    ),
    "kohya's names of another model": (
        {
            "lora_unet_joint_blocks_0.lora_down.weight": (4, 16),
            "lora_unet_joint_blocks_0.lora_up.weight": (16, 4),
        },
        {},
        "is in kohya's format, with names such as 'joint_blocks_0'",
    ),
    "a layer that is not trained": (
        PAIR
        | {
            "transformer.transformer_blocks.0.ff.net.2.lora_A.weight": (4, 64),
            "transformer.transformer_blocks.0.ff.net.2.lora_B.weight": (16, 4),
        },
        {},
        "also changes net.2, which a run",
    ),
    "other widths": ({DOWN: (4, 32), UP: (16, 4)}, {}, "do not fit the base model's"),
    "metadata that is no JSON": (PAIR, "{", "its metadata is damaged"),
    "metadata that is a list": (PAIR, "[1]", "its metadata is damaged"),
    "an alpha that is no number": (PAIR, {"transformer.lora_alpha": "high"}, "its metadata is damaged"),
    "an endless alpha": (PAIR, {"transformer.lora_alpha": 1e999}, "its metadata is damaged"),
    "a pattern that never ends": (
        PAIR,
        {"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"(a+)+b": 4}},
        "its metadata is damaged",
    ),
    "a pattern that is none": (
        PAIR,
        {"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"*": 4}},
        "its metadata is damaged",
    ),
    "a negative alpha": (PAIR, {"transformer.lora_alpha": -4}, "its metadata is damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_begun_from_is_named(case, model_of, tmp_path):
    shapes, metadata, sentence = REFUSED[case]
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    save_file(tensors, tmp_path / WEIGHTS, {"lora_adapter_metadata": text} if metadata else None)
    config = RunConfig(model=model_of("tiny-sd3").spec.name, start_adapter=str(tmp_path), lora_rank=4)
    with pytest.raises(InputError) as caught:
        checked_start(config)
    told = str(caught.value)
    assert sentence in told and told.endswith(".") and "rank 0" not in told and "None" not in told
    with pytest.raises(InputError):  # the loaded base model would have said so, too
        load_adapter(policy(model_of("tiny-sd3")), tmp_path / WEIGHTS)


def test_a_folder_of_several_or_of_pickles_is_told(tmp_path):
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="is pickled .adapter_model.bin."):
        read_lora(tmp_path)
    for name in ("a", "b"):
        save_file({"x.lora_A.weight": torch.zeros(2, 2)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "._a.safetensors").write_bytes(b"\0")
    with pytest.raises(InputError, match="There are 2 safetensors files"):
        read_lora(tmp_path)


def test_the_rank_follows_the_file_unless_one_is_given(model_of, tmp_path, capsys):
    model = model_of("tiny-sd3")
    plain(trained(model), tmp_path)
    words = ["train", "--dry-run", "--model", model.spec.name, "--reward", "brightness"]
    words += ["--estimator", "grpo"]
    for begin in (["--from-adapter", str(tmp_path)], ["--set", f"start_adapter={tmp_path}"]):
        assert main([*words, *begin]) == 0
        assert json.loads(capsys.readouterr().out)["lora_rank"] == RANK
        assert main([*words, *begin, "--set", "lora_rank=8"]) == 2
        assert f"has rank {RANK}; set lora_rank to it" in capsys.readouterr().err
