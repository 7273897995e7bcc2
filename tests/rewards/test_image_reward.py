"""ImageReward against BLIP's forward, written from its structure with the published names."""

import torch
from torch.nn import functional as F
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.rewards.checkpoints import BERT_WIDTH, BLIP_WIDTH, PATCH, SIZE, bert_tokenizer
from tests.rewards.test_clip_family import linear
from tests.rewards.test_preprocess import files, pictures
from trainers.rewards import load_reward, weights

PROMPTS = ["a red circle", "three green triangles of a square"]


def norm(state, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def attend(query, key, value, heads, mask=0.0):
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + mask
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def vision(state, pixels):
    vit = "blip.visual_encoder"
    x = F.conv2d(
        pixels, state[f"{vit}.patch_embed.proj.weight"], state[f"{vit}.patch_embed.proj.bias"], stride=PATCH
    )
    x = torch.cat([state[f"{vit}.cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + state[f"{vit}.pos_embed"]
    for number in range(2):
        block = f"{vit}.blocks.{number}"
        mixed = linear(state, f"{block}.attn.qkv", norm(state, f"{block}.norm1", x, 1e-6))
        x = x + linear(state, f"{block}.attn.proj", attend(*mixed.chunk(3, -1), heads=BLIP_WIDTH // 64))
        hidden = F.gelu(linear(state, f"{block}.mlp.fc1", norm(state, f"{block}.norm2", x, 1e-6)))
        x = x + linear(state, f"{block}.mlp.fc2", hidden)
    return norm(state, f"{vit}.norm", x, 1e-6)


def text(state, tokens, patches):
    bert = "blip.text_encoder"
    x = state[f"{bert}.embeddings.word_embeddings.weight"][tokens.input_ids]
    x = x + state[f"{bert}.embeddings.position_embeddings.weight"][: x.shape[1]]
    x = norm(state, f"{bert}.embeddings.LayerNorm", x, 1e-12)
    mask = (1 - tokens.attention_mask[:, None, None].float()) * -1e9
    for number in range(2):
        layer = f"{bert}.encoder.layer.{number}"
        for kind, source, hidden in (("attention", None, mask), ("crossattention", patches, 0.0)):
            one = f"{layer}.{kind}"
            names = [f"{one}.self.{part}" for part in ("query", "key", "value")]
            sources = (x, *[x if source is None else source] * 2)
            mixed = [linear(state, name, each) for name, each in zip(names, sources, strict=True)]
            y = linear(state, f"{one}.output.dense", attend(*mixed, heads=2, mask=hidden))
            x = norm(state, f"{one}.output.LayerNorm", x + y, 1e-12)
        y = F.gelu(linear(state, f"{layer}.intermediate.dense", x))
        x = norm(state, f"{layer}.output.LayerNorm", x + linear(state, f"{layer}.output.dense", y), 1e-12)
    return x[:, 0]


def test_value_is_that_of_blip_and_its_head(published):
    state = torch.load(published / weights.IMAGE_REWARD.repo / "ImageReward.pt", weights_only=True)
    images = pictures(40, 70)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    pixels = processor(files(images), return_tensors="pt")["pixel_values"]
    tokens = bert_tokenizer()(PROMPTS, padding="max_length", max_length=35, return_tensors="pt")
    x = text(state, tokens, vision(state, pixels))
    assert x.shape == (2, BERT_WIDTH)
    for number in (0, 2, 4, 6, 7):
        x = linear(state, f"mlp.layers.{number}", x)
    expected = (x[:, 0] - 0.16717362830052426) / 1.0333394966054072
    torch.testing.assert_close(load_reward("image_reward")(images, PROMPTS), expected, atol=1e-4, rtol=1e-4)
