"""What cannot be trained is refused by its small files, with a sentence before anything loads."""

import json
import shutil
from importlib.util import find_spec

import pytest
import torch
from diffusers import UNet2DConditionModel

from tests.models.tiny_pipelines import save
from trainers.errors import InputError
from trainers.models import MODELS
from trainers.models.access import access_problems
from trainers.models.base import load_model
from trainers.models.families import FAMILIES
from trainers.models.part_configs import needed_parts
from trainers.models.tiny_sizes import TINY

INPAINTING = "it is an inpainting model, and only text-to-image models can be trained here"
UNET, NET = "unet/config.json", "transformer/config.json"
CLIP_CONFIG = "tokenizer/tokenizer_config.json"
# Architecture, file, what it says instead, and the sentence.
UNFIT = {
    "inpainting": (
        "tiny-sd15",
        UNET,
        {"in_channels": 9},
        f"takes 9 channels and its autoencoder has 4: {INPAINTING}",
    ),
    "inpainting XL": ("tiny-sdxl", UNET, {"in_channels": 9}, INPAINTING),
    "instruct-pix2pix": ("tiny-sd15", UNET, {"in_channels": 8}, "it is an image-editing model"),
    "depth": ("tiny-sd21", UNET, {"in_channels": 5}, "it is a depth-to-image model"),
    "fill": ("tiny-flux", NET, {"in_channels": 384, "out_channels": 64}, f"has 64: {INPAINTING}"),
    "control": ("tiny-flux", NET, {"in_channels": 128, "out_channels": 64}, "it is an image-editing model"),
    "inpainting SD3": ("tiny-sd3", NET, {"in_channels": 33}, INPAINTING),
    "another autoencoder": (
        "tiny-sd15",
        "vae/config.json",
        {"latent_channels": 16},
        "do not belong together",
    ),
    "learned variance": (
        "tiny-sd15",
        UNET,
        {"out_channels": 8},
        "gives 8 channels and its autoencoder has 4",
    ),
    "transparent": ("tiny-sdxl", "vae/config.json", {"out_channels": 4}, "makes pictures of 4 channels"),
    "class labels": (
        "tiny-sd15",
        UNET,
        {"class_embed_type": "timestep"},
        "wants class labels as a further input",
    ),
    "numbered classes": ("tiny-sd15", UNET, {"num_class_embeds": 10}, "(num_class_embeds is 10)"),
    "distilled guidance": (
        "tiny-sd15",
        UNET,
        {"time_cond_proj_dim": 256},
        "wants the guidance scale, as networks",
    ),
    "distilled guidance XL": ("tiny-sdxl", UNET, {"time_cond_proj_dim": 256}, "(time_cond_proj_dim is 256)"),
    "pictures as prompts": (
        "tiny-sdxl",
        UNET,
        {"encoder_hid_dim_type": "ip_image_proj"},
        "embeddings of a picture",
    ),
    "sizes in SD1": ("tiny-sd15", UNET, {"addition_embed_type": "text_time"}, "wants sizes or pictures"),
    "XL without sizes": ("tiny-sdxl", UNET, {"addition_embed_type": "image"}, "wants other conditions"),
    "PixArt-alpha": ("tiny-pixart", NET, {"use_additional_conditions": True}, "wants sizes of pictures"),
    "PixArt of 1024": (
        "tiny-pixart",
        NET,
        {"use_additional_conditions": None, "sample_size": 128},
        "wants sizes",
    ),
    "Sana Sprint": ("tiny-sana", NET, {"guidance_embeds": True}, "wants the guidance scale"),
    "Z-Image Omni": ("tiny-z-image", NET, {"siglip_feat_dim": 1152}, "embeddings of a picture"),
    "another encoder": ("tiny-sd15", UNET, {"cross_attention_dim": 1024}, "reads texts of width 1024"),
    "one of XL's encoders": (
        "tiny-sdxl",
        "text_encoder/config.json",
        {"hidden_size": 48},
        "text encoders give 64",
    ),
    "pooled width of XL": (
        "tiny-sdxl",
        UNET,
        {"projection_class_embeddings_input_dim": 2560},
        "but its text encoders",
    ),
    "T5 of another size": (
        "tiny-sd3",
        "text_encoder_3/config.json",
        {"d_model": 64},
        "(joint_attention_dim)",
    ),
    "FLUX's CLIP": ("tiny-flux", "text_encoder/config.json", {"hidden_size": 32}, "(pooled_projection_dim)"),
    "another Gemma": ("tiny-sana", "text_encoder/config.json", {"hidden_size": 32}, "(caption_channels)"),
    "another Qwen": ("tiny-z-image", "text_encoder/config.json", {"hidden_size": 32}, "(cap_feat_dim)"),
    "too many tokens": (
        "tiny-sd15",
        CLIP_CONFIG,
        {"model_max_length": 77},
        "reads 77 tokens, but its text_encoder has",
    ),
    "no limit": ("tiny-sdxl", CLIP_CONFIG, {"model_max_length": None}, "reads without limit"),
    "zero signal": (
        "tiny-sd21",
        "scheduler/scheduler_config.json",
        {"rescale_betas_zero_snr": True},
        "zero signal",
    ),
    "flow scheduler": (
        "tiny-sd15",
        "scheduler/scheduler_config.json",
        {"prediction_type": "flow_prediction"},
        "does not fit",
    ),
    "no size": (
        "tiny-sd15",
        UNET,
        {"sample_size": None},
        "do not say how large its pictures are: set 'resolution'",
    ),
    "quantized": (
        "tiny-flux",
        NET,
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        "is quantized (bitsandbytes)",
    ),
    "quantized encoder": (
        "tiny-flux",
        "text_encoder_2/config.json",
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        "needs the package bitsandbytes, which is not installed",
    ),
    "another network": (
        "tiny-sd15",
        "model_index.json",
        {"unet": ["diffusers", "UNet3DConditionModel"]},
        "is a UNet3DCond",
    ),
    "own code": (
        "tiny-sd15",
        "model_index.json",
        {"unet": ["my_unet", "UNet2DConditionModel"]},
        "is of my_unet",
    ),
    "no text encoder": (
        "tiny-sd15",
        "model_index.json",
        {"text_encoder": [None, None]},
        "has no text_encoder",
    ),
    "half of XL": ("tiny-sdxl", "model_index.json", {"tokenizer_2": [None, None]}, "has no tokenizer_2"),
    "T5 without tokenizer": (
        "tiny-sd3",
        "model_index.json",
        {"tokenizer_3": [None, None]},
        "has no tokenizer_3",
    ),
    "no autoencoder": ("tiny-flux", "model_index.json", {"vae": None}, "has no vae"),
    "three words": (
        "tiny-sd15",
        "model_index.json",
        {"image_encoder": ["a", "b", "c"]},
        "names image_encoder in a form",
    ),
    "a path as a part": (
        "tiny-sd15",
        "model_index.json",
        {"../../etc": ["a", "b"]},
        "names ../../etc in a form",
    ),
}
_plain = {}


@pytest.fixture
def folder_of(tmp_path_factory, tmp_path):
    def copied(name):
        if name not in _plain:
            _plain[name] = save(name, tmp_path_factory.mktemp("plain") / "model")
        return shutil.copytree(_plain[name], tmp_path / "model")

    return copied


def edit(path, changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder):
    try:
        return access_problems(MODELS.get(str(folder)))
    except InputError as error:
        return list(error.problems)


@pytest.mark.parametrize("case", UNFIT)
def test_what_small_files_tell_is_told_before_anything_loads(case, folder_of):
    name, file, changes, sentence = UNFIT[case]
    folder = folder_of(name)
    assert refused(folder) == []
    edit(folder / file, changes)
    found = refused(folder)
    assert sentence in found[0] and all(told.endswith(".") for told in found), found
    with pytest.raises(InputError):
        assert load_model(MODELS.get(str(folder))).picture_size is None


def test_configs_that_say_nothing_of_these_are_no_reason(folder_of):
    """Old checkpoints leave out what did not exist in their day."""
    folder = folder_of("tiny-sd15")
    for file, keys in {
        UNET: (
            "class_embed_type",
            "num_class_embeds",
            "time_cond_proj_dim",
            "addition_embed_type",
            "out_channels",
        ),
        "vae/config.json": ("out_channels", "force_upcast", "shift_factor"),
        "text_encoder/config.json": ("projection_dim",),
    }.items():
        kept = {
            key: value for key, value in json.loads((folder / file).read_text()).items() if key not in keys
        }
        (folder / file).write_text(json.dumps(kept))
    assert refused(folder) == [] and load_model(MODELS.get(str(folder)))


def test_a_size_that_is_set_takes_the_place_of_one_that_is_not_said(folder_of):
    import dataclasses

    folder = folder_of("tiny-sd15")
    edit(folder / UNET, {"sample_size": None})
    spec = MODELS.get(str(folder))
    sized = dataclasses.replace(spec, call={**spec.call, "height": 16, "width": 16})
    assert access_problems(sized) == []
    assert load_model(sized).sample(["a"], [1], steps=2).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.title)
def test_every_needed_part_is_missed_by_name(family, folder_of):
    name = next(tiny for tiny, size in TINY.items() if size.pipeline_class == family.pipeline_class)
    folder = folder_of(name)
    index = (folder / "model_index.json").read_text()
    for part in needed_parts(family):
        (folder / "model_index.json").write_text(json.dumps(json.loads(index) | {part: [None, None]}))
        assert f"has no {part}:" in refused(folder)[0]
        (folder / "model_index.json").write_text(index)
        shutil.move(folder / part, folder / "away")
        assert refused(folder) == [
            f"The model '{folder}' is incomplete: {folder / part} is missing. Fetch the rest of it."
        ]
        shutil.move(folder / "away", folder / part)
    assert refused(folder) == []


def test_a_network_that_reads_nine_channels_would_have_failed_after_loading(folder_of):
    """What the sentence spares: the folder is whole, and diffusers opens it."""
    folder = folder_of("tiny-sd15")
    config = json.loads((folder / UNET).read_text()) | {"in_channels": 9}
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    assert INPAINTING in refused(folder)[0]
    network = UNet2DConditionModel.from_pretrained(folder / "unet")
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 12, 16))


# -- weights and small files -------------------------------------------------------------------------

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
LOST = {
    "a pointer of Git LFS": (
        lambda f: (f / WEIGHTS).write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        ),
        "only stands for the weights (Git LFS). Run 'git lfs pull'",
    ),
    "nothing in it": (lambda f: (f / WEIGHTS).write_bytes(b""), "is cut off"),
    "a broken link": (
        lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).symlink_to(f / "gone")),
        "unet has no weights",
    ),
    "another name": (
        lambda f: (f / WEIGHTS).rename(f / "unet" / "my_unet.safetensors"),
        "no weights under the names",
    ),
    "no words": (
        lambda f: [path.unlink() for path in (f / "tokenizer").glob("*") if "config" not in path.name],
        "tokenizer has no vocabulary",
    ),
    "no tokenizer config": (lambda f: (f / CLIP_CONFIG).unlink(), "tokenizer_config.json is missing"),
    "no scheduler config": (
        lambda f: (f / "scheduler" / "scheduler_config.json").unlink(),
        "scheduler_config.json is missing",
    ),
    "a config of no JSON": (lambda f: (f / UNET).write_text("{"), "unet/config.json cannot be read"),
    "a config of a list": (
        lambda f: (f / "vae" / "config.json").write_text("[]"),
        "vae/config.json cannot be read",
    ),
}


@pytest.mark.parametrize("case", LOST)
def test_what_is_lost_or_half_fetched_is_told_by_its_name(case, folder_of):
    harm, sentence = LOST[case]
    folder = folder_of("tiny-sd15")
    harm(folder)
    found = refused(folder)
    assert sentence in found[0] and found[0].endswith(".")


def test_a_tokenizer_that_is_a_sentencepiece_model_alone_needs_its_packages(folder_of):
    """As PixArt's own repositories have it: without them transformers would ask for another package."""
    folder = folder_of("tiny-pixart")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"x")
    told = [text for text in refused(folder) if "read with the packages sentencepiece and protobuf" in text]
    assert bool(told) == any(find_spec(name) is None for name in ("sentencepiece", "google"))
