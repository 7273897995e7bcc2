"""A saved LoRA means the same to every reader: to diffusers, to tools that know tensors only, and in kohya's
form.
"""

import itertools

import pytest
import torch
from safetensors import safe_open

from tests.models.tiny_pipelines import save
from trainers.adapter import load_adapter, reload_adapter, save_adapter
from trainers.adapter_file import WEIGHTS, read_header
from trainers.cli import main
from trainers.models import MODELS
from trainers.models.base import load_model
from trainers.models.tiny_sizes import TINY
from trainers.policy import Policy

SHAPES = [(4, 8.0), (4, 2.0), (4, 4.0), (3, 5.0)]


def trained(spec, rank, alpha):
    """Return a policy whose LoRA does something."""
    policy = Policy(load_model(spec), rank, alpha, 0, torch.float32, None, 8)
    generator = torch.Generator().manual_seed(1)
    state = {
        name: torch.randn(tensor.shape, generator=generator) * 0.1 for name, tensor in policy.state().items()
    }
    policy.load_state(state)
    return policy


def products(file, metadata):
    """Return the change of every weight as a reader sees it, with or without the metadata."""
    reader = safe_open(file, "pt")
    header = read_header(file)
    scale = 1.0 if not metadata else header.alpha / header.rank
    tensors = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (it is no mapping)
    pairs = [(t, tensors[n.replace("lora_A", "lora_B")]) for n, t in tensors.items() if "lora_A" in n]
    return [scale * up.flatten(1) @ down.flatten(1) for down, up in pairs]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = save(name, tmp_path_factory.mktemp("models") / name)
        return MODELS.get(str(made[name]))

    return folder


@pytest.mark.parametrize(("name", "shape"), [(n, s) for n, s in itertools.product(TINY, SHAPES[:2])])
def test_readers_with_and_without_the_metadata_see_the_trained_change(name, shape, folders, tmp_path):
    policy = trained(folders(name), *shape)
    save_adapter(policy, tmp_path)
    told, plain = (products(tmp_path / WEIGHTS, metadata) for metadata in (True, False))
    state, scale = policy.state(), shape[1] / shape[0]
    mine = [
        scale * state[n.replace("lora_A", "lora_B")].flatten(1) @ tensor.flatten(1)
        for n, tensor in state.items()
        if "lora_A" in n
    ]
    for first, second in ((told, plain), (sorted(told, key=shape_of), sorted(mine, key=shape_of))):
        assert len(first) == len(second) > 0
    assert all(torch.equal(a, b) for a, b in zip(told, plain, strict=True))
    assert sum(float(p.square().sum()) for p in plain) == pytest.approx(
        sum(float(p.square().sum()) for p in mine), rel=1e-5
    )


def shape_of(tensor):
    return tuple(tensor.shape)


@pytest.mark.parametrize("alpha", [4.0, 32.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_loaded_lora_goes_on_with_what_was_saved_whatever_the_run_s_alpha(shape, alpha, folders, tmp_path):
    policy = trained(folders("tiny-sd3"), *shape)
    save_adapter(policy, tmp_path)
    again = Policy(load_model(folders("tiny-sd3")), shape[0], alpha, 0, torch.float32, None, 8)
    load_adapter(again, tmp_path / WEIGHTS)
    schedule, rows = policy.model.schedule(4), policy.model.encode(["a red circle"])
    latents = torch.randn(1, *policy.model.latent_shape, generator=torch.Generator().manual_seed(0))
    outputs = [p.sample_output(latents, schedule, 1, rows) for p in (policy, again)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny-sd15", "tiny-sdxl"])
def test_the_export_in_kohya_s_form_draws_the_same_images(name, folders, tmp_path):
    spec = folders(name)
    save_adapter(trained(spec, 4, 8.0), tmp_path / "adapter")
    out = tmp_path / "kohya" / WEIGHTS
    assert main(["export-lora", str(tmp_path), "--out", str(out)]) == 0
    names = set(read_header(out).shapes)
    assert all(
        n.startswith("lora_unet_") and n.endswith((".lora_down.weight", ".lora_up.weight", ".alpha"))
        for n in names
    )
    images = [
        reload_adapter(spec, folder, "cpu").sample(["a red circle"], [3], None, 3)
        for folder in (tmp_path / "adapter", out.parent)
    ]
    assert (images[0] - images[1]).abs().max() <= 1.01 / 255
    assert (images[0] - load_model(spec).sample(["a red circle"], [3], None, 3)).abs().max() > 0.02


@pytest.mark.parametrize(
    ("name", "out", "words"),
    [
        ("tiny-sd3", "x.safetensors", "of a transformer"),
        ("tiny-sd15", "x.bin", "must name a .safetensors file"),
        ("tiny-sd15", "adapter/" + WEIGHTS, "is there already"),
    ],
)
def test_an_export_that_makes_no_sense_is_refused(name, out, words, folders, tmp_path, capsys):
    save_adapter(trained(folders(name), 2, 2.0), tmp_path / "adapter")
    assert main(["export-lora", str(tmp_path), "--out", str(tmp_path / out)]) == 2
    assert words in capsys.readouterr().err
    assert main(["export-lora", str(tmp_path / "no"), "--out", str(tmp_path / out)]) == 2
