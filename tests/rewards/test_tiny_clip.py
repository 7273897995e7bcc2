"""The tiny CLIP as a reward: on a random model for its mechanics, on the shipped one for its sense."""

import json

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from trainers.errors import FaultError
from trainers.rewards import tiny_clip
from trainers.shapes.grammar import parse
from trainers.shapes.render import render
from trainers.shapes.scenes import sample_scene
from trainers.shapes.tokenizer import MAX_LENGTH, build_tokenizer

LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
STATISTICS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
PROMPTS = ["a red circle", "three green triangles"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A random model in the layout of the shipped folder."""
    tokenizer = build_tokenizer()
    text = LAYERS | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_LENGTH,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = LAYERS | {"image_size": 64, "patch_size": 16}
    folder = tmp_path_factory.mktemp("assets") / "tiny-clip"
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": STATISTICS}))
    return folder


@pytest.fixture
def reward(saved, monkeypatch):
    monkeypatch.setenv("RSM_ASSETS", str(saved.parent))
    return tiny_clip.load()


def images(size=64, dtype=torch.float32):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_value_is_the_cosine_that_transformers_computes(reward, saved):
    model = CLIPModel.from_pretrained(saved, dtype=torch.float32).eval()
    tokens = build_tokenizer()(PROMPTS, padding="max_length", max_length=MAX_LENGTH, return_tensors="pt")
    mean, std = (torch.tensor(values) for values in STATISTICS.values())
    pixels = (images() - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        logits = model(**tokens, pixel_values=pixels).logits_per_image / model.logit_scale.exp()
    torch.testing.assert_close(reward(images(), PROMPTS), logits.diagonal())


def test_features_have_unit_length_and_carry_gradients(reward):
    pixels = images().requires_grad_()
    features = reward.towers.pictures(pixels)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    features[:, 0].sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_weights_are_frozen_and_in_float32(reward):
    model = reward.towers.model
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training


def test_gradient_agrees_with_a_finite_difference(reward):
    reward.towers.model.double()
    pixels = images(dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(reward(pixels, PROMPTS).sum(), pixels)
    direction = torch.randn(pixels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ends = [reward(pixels + h * direction, PROMPTS).sum() for h in (1e-5, -1e-5)]
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-9)


def test_other_sizes_are_resampled_differentiably(reward):
    pixels = images(size=96).requires_grad_()
    reward(pixels, PROMPTS).sum().backward()
    assert (pixels.grad.abs().sum((1, 2, 3)) > 0).all()


def test_each_caption_is_embedded_once(reward):
    first = reward.towers.captions(PROMPTS)
    calls = []
    reward.towers.model.text_model.register_forward_hook(lambda *_: calls.append(1))
    again = reward.towers.captions([*PROMPTS, *PROMPTS[::-1]])
    assert calls == [] and torch.equal(again, first[[0, 1, 1, 0]])
    reward.towers.captions(["a blue square", "a blue square"])
    assert calls == [1]


def test_a_long_prompt_is_cut_not_refused(reward):
    assert reward(images(), ["a red circle " * 50, ""]).isfinite().all()


def test_the_processor_file_of_transformers_4_is_read_too(saved, tmp_path):
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "processor_config.json").unlink()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(STATISTICS))
    torch.testing.assert_close(
        tiny_clip.TinyClip(tmp_path)(images(), PROMPTS), tiny_clip.TinyClip(saved)(images(), PROMPTS)
    )


def test_a_missing_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_ASSETS", str(tmp_path))
    with pytest.raises(FaultError, match="missing") as caught:
        tiny_clip.load()
    assert str(tmp_path / "tiny-clip") in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 50),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "processor_config.json").unlink(),
        lambda folder: (folder / "processor_config.json").write_text("{}"),
        lambda folder: (folder / "tokenizer.json").write_text("nonsense"),
    ],
    ids=["weights", "no weights", "config", "no processor", "empty processor", "tokenizer"],
)
def test_a_damaged_folder_is_named(saved, tmp_path, monkeypatch, damage):
    folder = tmp_path / "tiny-clip"
    folder.mkdir()
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    damage(folder)
    monkeypatch.setenv("RSM_ASSETS", str(tmp_path))
    with pytest.raises(FaultError, match="damaged") as caught:
        tiny_clip.load()
    assert str(folder) in str(caught.value)


def test_missing_weights_are_a_fault_not_random_numbers(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(saved / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FaultError, match="visual_projection"):
        tiny_clip.TinyClip(tmp_path)


def test_the_shipped_model_prefers_the_caption_that_was_drawn(monkeypatch):
    monkeypatch.delenv("RSM_ASSETS", raising=False)
    rng = np.random.default_rng(0)
    prompts = [
        "a red circle",
        "three green triangles",
        "a blue square left of a yellow circle",
        "two purple squares",
    ]
    scenes = np.stack([render(sample_scene(rng, parse(p))) for p in prompts for _ in range(4)])
    pictures = torch.from_numpy(scenes).permute(0, 3, 1, 2).float() / 255
    reward = tiny_clip.load()
    with torch.no_grad():
        scores = torch.stack([reward(pictures, [prompt] * len(pictures)) for prompt in prompts], dim=1)
    right = scores.argmax(1) == torch.arange(len(prompts)).repeat_interleave(4)
    assert right.float().mean() >= 0.9
