"""CLIPScore, PickScore, HPSv2.1 and the aesthetic predictor against forwards written apart from them."""

import shutil

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.rewards.checkpoints import PATCH, SIZE
from tests.rewards.test_preprocess import files, pictures
from trainers.errors import FaultError
from trainers.rewards import load_reward, weights
from trainers.rewards.clip import read_tokenizer
from trainers.rewards.preprocess import CLIP_MEAN, CLIP_STD

PROMPTS = ["a red circle", "three green triangles"]


def processed(images):
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return processor(files(images), return_tensors="pt")["pixel_values"]


def tokens(folder):
    return read_tokenizer(folder)(PROMPTS, padding="max_length", max_length=12, return_tensors="pt")


@pytest.mark.parametrize(
    ("name", "part"), [("clip_score", weights.CLIP_LARGE), ("pick_score", weights.PICKSCORE)]
)
def test_value_is_that_of_transformers_with_its_own_processor(published, name, part):
    model = CLIPModel.from_pretrained(published / part.repo, dtype=torch.float32).eval()
    images = pictures(50, 41)
    with torch.no_grad():
        output = model(**tokens(published / part.repo), pixel_values=processed(images))
    expected = output.logits_per_image.diagonal()
    expected = expected if name == "pick_score" else expected / model.logit_scale.exp()
    torch.testing.assert_close(load_reward(name)(images, PROMPTS), expected, atol=1e-5, rtol=1e-4)


# -- open_clip's ViT and text transformer, written from their structure ------------------------------


def norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def linear(state, name, x):
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def block(state, prefix, x, heads, causal):
    y = norm(state, f"{prefix}.ln_1", x)
    mixed = F.linear(y, state[f"{prefix}.attn.in_proj_weight"], state[f"{prefix}.attn.in_proj_bias"])
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in mixed.chunk(3, -1))
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    if causal:
        scores = scores + torch.full(scores.shape[-2:], float("-inf")).triu(1)
    y = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    x = x + linear(state, f"{prefix}.attn.out_proj", y)
    hidden = F.gelu(linear(state, f"{prefix}.mlp.c_fc", norm(state, f"{prefix}.ln_2", x)))
    return x + linear(state, f"{prefix}.mlp.c_proj", hidden)


def image_side(state, pixels):
    patches = F.conv2d(pixels, state["visual.conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    first = state["visual.class_embedding"].expand(len(pixels), 1, -1)
    x = torch.cat([first, patches], 1) + state["visual.positional_embedding"]
    x = norm(state, "visual.ln_pre", x)
    for number in range(2):
        x = block(state, f"visual.transformer.resblocks.{number}", x, 2, causal=False)
    return F.normalize(norm(state, "visual.ln_post", x[:, 0]) @ state["visual.proj"], dim=1)


def text_side(state, ids, end):
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    for number in range(2):
        x = block(state, f"transformer.resblocks.{number}", x, 2, causal=True)
    x = norm(state, "ln_final", x)
    x = x[torch.arange(len(x)), (ids == end).long().argmax(1)]
    return F.normalize(x @ state["text_projection"], dim=1)


def test_hps_is_the_cosine_of_open_clip(published):
    path = published / weights.HPS.repo / weights.HPS.files[0]
    state = {k: v.float() for k, v in torch.load(path, weights_only=True)["state_dict"].items()}
    images = pictures(48, 48)
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    resized = F.interpolate(images, (SIZE, SIZE), mode="bicubic", antialias=True)
    folder = published / weights.CLIP_HUGE.repo
    texts = text_side(state, tokens(folder)["input_ids"], read_tokenizer(folder).eos_token_id)
    expected = (image_side(state, (resized - mean) / std) * texts).sum(1)
    torch.testing.assert_close(load_reward("hps_v2")(images, PROMPTS), expected, atol=1e-5, rtol=1e-4)


def test_the_aesthetic_head_is_one_linear_map_of_the_embedding(published):
    head = torch.load(published / weights.AESTHETIC.repo / weights.AESTHETIC.files[0], weights_only=True)
    model = CLIPModel.from_pretrained(published / weights.CLIP_LARGE.repo, dtype=torch.float32).eval()
    images = pictures(33, 60)
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=processed(images)).pooler_output
        x = F.normalize(model.visual_projection(pooled), dim=1)
        for number in (0, 2, 4, 6, 7):
            x = linear(head, f"layers.{number}", x)
    torch.testing.assert_close(load_reward("aesthetic")(images, ["", ""]), x[:, 0], atol=1e-5, rtol=1e-4)


def broken(published, tmp_path, monkeypatch, part, change):
    """Give a reward a copy of its files with one of them changed."""
    root = tmp_path / "weights"
    for owner in published.iterdir():
        shutil.copytree(owner, root / owner.name)
    path = (
        root / part.repo / next(name for name in part.files if name.endswith((".pt", ".pth", ".safetensors")))
    )
    change(path)
    monkeypatch.setenv("RSM_WEIGHTS", str(root))


def without_a_parameter(path):
    stored = torch.load(path, weights_only=True)
    (stored.get("state_dict") or stored).popitem()
    state = stored.get("state_dict") or stored
    state.pop(
        next(name for name in state if "resblocks.0" in name or "layers.4" in name or "blocks.0" in name)
    )
    torch.save(stored, path)


class Harmful:
    def __reduce__(self):
        return print, ("this pickle ran code",)


@pytest.mark.parametrize(
    ("name", "part"),
    [("hps_v2", weights.HPS), ("aesthetic", weights.AESTHETIC), ("image_reward", weights.IMAGE_REWARD)],
)
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: torch.save({"state_dict": Harmful()}, path),
        without_a_parameter,
    ],
    ids=["cut short", "with code in it", "incomplete"],
)
def test_a_damaged_checkpoint_is_told_and_runs_no_code(
    published, tmp_path, monkeypatch, capsys, name, part, change
):
    broken(published, tmp_path, monkeypatch, part, change)
    with pytest.raises(FaultError, match="damaged"):
        load_reward(name)
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize(("name", "part"), [("clip_score", weights.CLIP_LARGE), ("ocr", weights.TEXT_READER)])
def test_a_damaged_folder_is_told(published, tmp_path, monkeypatch, name, part):
    broken(published, tmp_path, monkeypatch, part, lambda path: path.write_bytes(b"nothing"))
    with pytest.raises(FaultError, match=f"{part.repo}.*damaged"):
        load_reward(name)
