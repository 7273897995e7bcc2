"""Folders of every family as people have them: all of these load and draw what the plain folder draws."""

import dataclasses
import inspect
import json
import shutil

import diffusers
import pytest
import torch

from tests.models.tiny_pipelines import save
from trainers.errors import InputError
from trainers.machine import quiet_libraries
from trainers.models import MODELS
from trainers.models.access import access_problems, stored
from trainers.models.base import load_model
from trainers.models.families import FAMILIES
from trainers.models.sizes import BETAS
from trainers.models.tiny_sizes import TINY
from trainers.models.trial_parts import part_trials

SAFETY = ["stable_diffusion", "StableDiffusionSafetyChecker"]
EXTRACTOR = ["transformers", "CLIPImageProcessor"]
IMAGES = ["transformers", "CLIPVisionModelWithProjection"]


@pytest.fixture(scope="module", params=TINY)
def family(request, tmp_path_factory):
    """An architecture, a plain folder of it, and a picture of that."""
    quiet_libraries()
    folder = save(request.param, tmp_path_factory.mktemp("plain") / "model")
    return request.param, folder, drawn(request.param, folder)


def drawn(name, folder):
    """A picture of a folder, opened as a run opens it, once nothing speaks against that."""
    spec = MODELS.get(str(folder))
    spec = dataclasses.replace(spec, call={**spec.call, **TINY[name].call})
    assert access_problems(spec) == part_trials(spec) == []
    return load_model(spec).sample(["a red circle"], [3])


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def parts(folder):
    return [path for path in folder.iterdir() if (path / "config.json").is_file()]


def halved(folder):
    """Only fp16 files, as fetched with a pattern that also brings the index of the full-precision shards."""
    for part in parts(folder):
        for path in part.glob("*.safetensors"):
            path.rename(part / path.name.replace(".safetensors", ".fp16.safetensors"))
            weights = {"weight_map": {"a": path.name.replace(".", "-00001-of-00002.", 1)}}
            (part / f"{path.name}.index.json").write_text(json.dumps(weights))


def sharded(folder):
    """Weights in several files, as large checkpoints have them."""
    for part in parts(folder):
        kind = json.loads((folder / "model_index.json").read_text())[part.name]
        library = __import__(kind[0])
        model = getattr(library, kind[1]).from_pretrained(part)
        for path in part.glob("*.safetensors"):
            path.unlink()
        model.save_pretrained(part, max_shard_size="20KB")
    assert len([*folder.glob("*/*-of-*.safetensors")]) > 4


def pruned(folder):
    """The index names parts that somebody removed, and one that its class does not know."""
    edited(
        folder / "model_index.json",
        feature_extractor=EXTRACTOR,
        image_encoder=IMAGES,
        refiner=["diffusers", "UNet2DConditionModel"],
        **({"safety_checker": SAFETY} if (folder / "unet").is_dir() else {}),
    )


def littered(folder):
    """Sidecars of systems and editors, other weights beside those that are loaded, half-fetched ones too."""
    for part in [folder, *parts(folder)]:
        for name in (".DS_Store", "._config.json", "Thumbs.db", "desktop.ini"):
            (part / name).write_bytes(b"\0\5\26\7")
        for path in [*part.glob("*.safetensors")]:
            (part / f"._{path.name}").write_bytes(b"\0\5\26\7")
            (part / f".{path.name}.incomplete").write_bytes(b"")
            (part / path.name.replace(".safetensors", ".non_ema.safetensors")).write_bytes(b"half")
    (folder / "v1-5-pruned-emaonly.safetensors").write_bytes(b"half")


def cached(folder):
    """The Hub's cache: a snapshot of links into blobs."""
    place = folder.parent / "models--owner--model"
    (place / "blobs").mkdir(parents=True)
    snapshot = place / "snapshots" / ("0" * 40)
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob = place / "blobs" / f"{number:064d}"
        shutil.copyfile(path, blob)
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    shutil.rmtree(folder)
    folder.symlink_to(snapshot)


LAYOUTS = {"halved": halved, "sharded": sharded, "pruned": pruned, "littered": littered, "cached": cached}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_and_draws_the_same(layout, family, tmp_path):
    name, plain, picture = family
    folder = shutil.copytree(plain, tmp_path / "größe μ — 模型 'x' (1)" / "my model, v2.0")
    LAYOUTS[layout](folder)
    assert torch.equal(drawn(name, folder), picture)


def test_all_of_them_together_load_too(family, tmp_path):
    name, plain, picture = family
    folder = shutil.copytree(plain, tmp_path / "a model")
    for change in (pruned, littered, halved, cached):
        change(folder)
    spec = MODELS.get(str(folder))
    assert stored(spec.location).variant == "fp16" and "image_encoder" in stored(spec.location).absent
    assert torch.equal(drawn(name, folder), picture)


SCHEDULERS = {
    "diffusion": (
        "PNDM",
        "DPMSolverSinglestep",
        "UniPCMultistep",
        "EulerAncestralDiscrete",
        "LMSDiscrete",
        "DDPM",
    ),
    "flow": ("FlowMatchLCM", "UniPCMultistep", "DPMSolverSinglestep"),
}


def test_unusual_schedulers_keep_loading(family, tmp_path):
    name, plain, _ = family
    spec = MODELS.get(str(plain))
    folder = shutil.copytree(plain, tmp_path / "model")
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    for short in SCHEDULERS[spec.family]:
        made, options = (
            getattr(diffusers, f"{short}Scheduler"),
            flow if spec.family == "flow" else BETAS | {"steps_offset": 1},
        )
        known = inspect.signature(made).parameters
        made(**{key: options[key] for key in options if key in known}).save_pretrained(folder / "scheduler")
        edited(folder / "model_index.json", scheduler=["diffusers", made.__name__])
        found = access_problems(MODELS.get(str(folder)))
        if FAMILIES[spec.pipeline_class].hands_levels and not short.startswith("Flow"):
            assert "gives no noise levels that this flow can be trained at" in found[0]  # nor drawn with
        else:
            assert found == [] and load_model(MODELS.get(str(folder))).schedule(4).steps == 4, short


def test_pixart_s_own_repositories_name_the_network_by_its_earlier_class(tmp_path):
    folder = save("tiny-pixart", tmp_path / "model")
    picture = drawn("tiny-pixart", folder)
    edited(folder / "model_index.json", transformer=["diffusers", "Transformer2DModel"], _ignore_files=["a"])
    edited(folder / "transformer" / "config.json", _class_name="Transformer2DModel")
    assert torch.equal(drawn("tiny-pixart", folder), picture)


@pytest.mark.parametrize("said", ["null", "not at all"])
def test_stable_diffusion_3_without_its_third_encoder_loads(said, tmp_path):
    """As people save it to spare nine gigabytes; diffusers wants to be told whatever the index says."""
    folder = save("tiny-sd3", tmp_path / "model")
    third = ("text_encoder_3", "tokenizer_3")
    plain = diffusers.StableDiffusion3Pipeline.from_pretrained(folder, **dict.fromkeys(third))
    for part in third:
        shutil.rmtree(folder / part)
    index = json.loads((folder / "model_index.json").read_text())
    index |= dict.fromkeys(third, [None, None])
    if said == "not at all":
        index = {name: value for name, value in index.items() if name not in third}
    (folder / "model_index.json").write_text(json.dumps(index))
    spec = MODELS.get(str(folder))
    assert access_problems(spec) == [] and set(third) <= set(stored(spec.location).absent)
    picture = drawn("tiny-sd3", folder)
    assert torch.isfinite(picture).all() and torch.equal(
        load_model(spec).pipe.encode_prompt(*["a red circle"] * 3, device="cpu")[0],
        plain.encode_prompt(*["a red circle"] * 3, device="cpu")[0],
    )


def test_a_scheduler_that_no_name_tells_is_refused_when_it_is_loaded(tmp_path):
    folder = save("tiny-sdxl", tmp_path / "model")
    diffusers.PNDMScheduler().save_pretrained(folder / "scheduler")  # its last step goes nowhere
    edited(folder / "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
    with pytest.raises(InputError, match="cannot be trained with its scheduler PNDMScheduler: Noise levels"):
        load_model(MODELS.get(str(folder)))


def test_a_picture_size_of_two_numbers_is_followed(tmp_path):
    folder = save("tiny-sd15", tmp_path / "model")
    edited(folder / "unet" / "config.json", sample_size=[8, 12])
    model = load_model(MODELS.get(str(folder)))
    assert model.picture_size == (16, 24) and model.latent_shape == (4, 8, 12)
    assert model.sample(["a"], [1], steps=2).shape[2:] == (16, 24)
