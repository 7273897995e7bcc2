"""ImageReward: how well a picture serves a caption in people's eyes. Differentiable through the picture.

A BLIP (ViT-L/16 and a BERT that attends to the picture) with a small head. Its package needs old libraries,
so the published weights are read into transformers' BLIP modules under their names there
(``convert_blip``); the text side already has the same names. Pictures are resized as 8-bit ones and cut to
a square, as published.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipVisionConfig, BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from trainers.errors import FaultError
from trainers.rewards.aesthetic import linear_head
from trainers.rewards.clip import damaged
from trainers.rewards.contract import Reward
from trainers.rewards.hps import read_checkpoint
from trainers.rewards.preprocess import Preprocess
from trainers.rewards.weights import BERT_WORDS, IMAGE_REWARD

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the head's output over the authors' data
HEAD_DIM = 64  # of every attention head of BLIP's ViT
MAX_TOKENS = 35
_VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
}
_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


class ImageReward(Reward):
    """The published score, (head(BERT(caption, ViT(picture))[CLS]) − mean) / std.

    Args:
        vision: pictures → patch embeddings.
        text: caption and patch embeddings → states, by cross-attention.
        head: (B, D) → (B, 1).
        tokenizer: of the captions.
        device: where the networks run.

    Source: Xu et al., ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation,
        2023.
    """

    def __init__(self, vision: nn.Module, text: nn.Module, head: nn.Module, tokenizer, device: str):
        self.vision, self.text, self.head = (
            part.to(device).eval().requires_grad_(False) for part in (vision, text, head)
        )
        self.tokenizer = tokenizer
        self.pixels = Preprocess(vision.config.image_size)
        self._lock = threading.Lock()  # tokenizers keep their padding between calls

    def __call__(self, images, prompts, metadata=None):
        device = next(self.head.parameters()).device
        patches = self.vision(pixel_values=self.pixels(images.to(device).float())).last_hidden_state
        with self._lock:
            tokens = self.tokenizer(
                list(prompts),
                padding="max_length",
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            ).to(device)
        states = self.text(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            encoder_hidden_states=patches,
            encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long, device=device),
        ).last_hidden_state
        scores = self.head(states[:, 0].float()).squeeze(1)
        return ((scores - MEAN) / STD).to(images.device)


def convert_blip(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Sort the parameters of an ImageReward checkpoint into those of vision, text and head, renamed."""
    vision: dict[str, Tensor] = {}
    text: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    for name, value in state.items():
        name = name.removeprefix("blip.")
        if name.startswith("visual_encoder."):
            vision[_vision_name(name.removeprefix("visual_encoder."))] = value
        elif name.startswith("text_encoder."):
            text[name.removeprefix("text_encoder.")] = value
        elif name.startswith("mlp.layers."):
            head[name.removeprefix("mlp.layers.")] = value
    text.pop("embeddings.position_ids", None)
    return vision, text, head


def _vision_name(name: str) -> str:
    if name in _VISION:
        return _VISION[name]
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
    if block:
        number, part, kind = block.groups()
        return f"encoder.layers.{number}.{_BLOCK.get(part, part)}.{kind}"
    stem, _, kind = name.rpartition(".")
    return f"{_VISION.get(stem, stem)}.{kind}"


def build(state: Mapping[str, Tensor], text_settings: Mapping, folder: Path) -> tuple[nn.Module, ...]:
    """Return vision, text and head with the checkpoint's weights.

    Args:
        state: the checkpoint.
        text_settings: the published ``med_config.json``, BERT's sizes.
        folder: for messages.

    Raises:
        FaultError: a parameter is missing.
    """
    vision_state, text_state, head_state = convert_blip(state)
    try:
        vision = BlipVisionModel(_vision_config(vision_state))
        text = BlipTextModel(_text_config(text_settings, text_state), add_pooling_layer=False)
        head = linear_head(text.config.hidden_size)
        parts = ((vision, vision_state), (text, text_state), (head, head_state))
        missing = [
            name for part, own in parts for name in part.load_state_dict(own, strict=False).missing_keys
        ]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(folder, error) from error
    if missing:
        raise FaultError(f"The folder '{folder}' is damaged: its weights lack '{missing[0]}'.")
    return vision, text, head


def _vision_config(state: Mapping[str, Tensor]) -> BlipVisionConfig:
    """Read the ViT's sizes off its parameters; the checkpoint does not say them otherwise."""
    patches = state["embeddings.patch_embedding.weight"]
    places = state["embeddings.position_embedding"].shape[1] - 1
    layers = 1 + max(
        int(found[1]) for name in state if (found := re.match(r"encoder\.layers\.(\d+)\.", name))
    )
    return BlipVisionConfig(
        hidden_size=patches.shape[0],
        intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=layers,
        num_attention_heads=max(1, patches.shape[0] // HEAD_DIM),
        image_size=round(places**0.5) * patches.shape[2],
        patch_size=patches.shape[2],
        layer_norm_eps=1e-6,
        hidden_act="gelu",
    )


def _text_config(settings: Mapping, state: Mapping[str, Tensor]) -> BlipTextConfig:
    names = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("max_position_embeddings", "layer_norm_eps", "hidden_act"),
    )
    return BlipTextConfig(
        **{name: settings[name] for name in names},
        vocab_size=state["embeddings.word_embeddings.weight"].shape[0],
        encoder_hidden_size=state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        is_decoder=True,  # builds the cross-attention; the mask stays that of an encoder
    )


def load(device: str = "cpu") -> ImageReward:
    """Return the reward."""
    folder = IMAGE_REWARD.folder()
    words = BERT_WORDS.folder()
    state = read_checkpoint(folder / IMAGE_REWARD.files[0])
    try:
        settings = json.loads((folder / IMAGE_REWARD.files[1]).read_text(encoding="utf-8"))
        # By name: the published settings do not say their class, and guessing it loses the padding token.
        tokenizer = BertTokenizer.from_pretrained(words, local_files_only=True)
    except Exception as error:
        raise damaged(folder, error) from error
    return ImageReward(*build(state, settings, folder), tokenizer, device)
