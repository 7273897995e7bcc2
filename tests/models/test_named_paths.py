"""Paths that name no pipeline folder: each is answered with what to name instead."""

import json
import shutil

import pytest

from tests.models.tiny_pipelines import save
from trainers.errors import InputError
from trainers.models import MODELS
from trainers.models.access import access_problems
from trainers.models.folders import looks_like_checkpoint, place_of
from trainers.models.single_file import tensor_names


def refused(name):
    try:
        return access_problems(MODELS.get(str(name)))
    except InputError as error:
        return list(error.problems)


def single(path, *names):
    """A safetensors file whose header names some tensors."""
    header = json.dumps(
        {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in names}
    ).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ("cond_stage_model.transformer.x", "StableDiffusionPipeline"),
        ("conditioner.embedders.1.model.x", "StableDiffusionXLPipeline"),
        ("model.diffusion_model.joint_blocks.0.x", "StableDiffusion3Pipeline"),
        ("double_blocks.0.img_attn.qkv.weight", "FluxPipeline"),
        ("something.else", "StableDiffusionPipeline"),
    ],
)
def test_a_single_file_is_answered_with_its_conversion(tensor, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = single(tmp_path / "checkpoints" / "Dreamy v8.safetensors", tensor)
    for name in (
        str(path),
        "checkpoints/Dreamy v8.safetensors",
        "./checkpoints/Dreamy v8.safetensors",
        "checkpoints",
    ):
        (told,) = refused(name)
        assert f"{kind}.from_single_file('Dreamy v8.safetensors').save_pretrained('Dreamy v8')" in told
    assert tensor_names(path) == [tensor]


def test_a_lora_a_part_a_cache_and_an_address_are_known_for_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lora = single(tmp_path / "l" / "my.safetensors", "unet.x.lora_A.weight")
    assert "is a LoRA, no base model" in refused(lora)[0] and "--from-adapter" in refused(lora)[0]
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").write_text("{}")
    assert "is a LoRA, no base model" in refused(tmp_path / "peft")[0]
    folder = save("tiny-sd15", tmp_path / "model")
    assert f"It is one part of {folder}; name that folder." in refused(folder / "unet")[0]
    cache = tmp_path / "models--owner--model" / "snapshots" / "abc"
    shutil.copytree(folder, cache)
    assert f"There is one in it: name {cache}." in refused(cache.parent.parent)[0]
    assert "is an address. Name a Hub id" in refused("https://huggingface.co/owner/model")[0]
    notes = tmp_path / "notes.txt"
    notes.write_text("x")
    assert "is a file, and the folder of a diffusers pipeline is needed" in refused(notes)[0]
    assert MODELS.get("model").pipeline_class == "StableDiffusionPipeline", "a folder beside us, named bare"


@pytest.mark.parametrize(
    "name",
    [
        "./no-such",
        "../no-such",
        "~/no-such",
        "owner/na..me",
        "a/b.git",
        "a/-b",
        ".a/b",
        "a/b--c",
        "gone.ckpt",
    ],
)
def test_what_can_be_no_hub_id_is_a_path_that_is_not_there(name):
    assert looks_like_checkpoint(name) and place_of(name) is not None
    (told,) = refused(name)
    assert told.startswith(("There is no folder", "There is no file")) and told.endswith("Check the path.")


@pytest.mark.parametrize("name", ["owner/model", "runwayml/stable-diffusion-v1-5", "a/b.c_d-e", "x1/2.5"])
def test_hub_ids_stay_hub_ids(name):
    assert looks_like_checkpoint(name) and place_of(name) is None
