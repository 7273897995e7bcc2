"""HPSv2.1: how much people would prefer a picture of a caption. Differentiable through the picture.

Its package pins old libraries, so the published weights are read by transformers instead: an open_clip
ViT-H/14 whose parameters get transformers' names (``convert_open_clip``). The original resizes pictures as
tensors in [0, 1], not as 8-bit pictures, and so does this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from trainers.rewards.clip import ClipFit, ClipTowers, damaged, read_model, read_tokenizer
from trainers.rewards.preprocess import Preprocess
from trainers.rewards.weights import CLIP_HUGE, HPS

_PLAIN = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
}
_NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",  # transformers spells it so
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")


def convert_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the parameters of an open_clip CLIP the names and shapes that transformers uses.

    Query, key and value of a block are one matrix there and three here; the two projections are stored
    transposed. What is neither (masks, heads of other tasks) is left out.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        block = _BLOCK.fullmatch(name)
        if name in _PLAIN:
            found[_PLAIN[name]] = value
        elif stem in _NORMS:
            found[f"{_NORMS[stem]}.{kind}"] = value
        elif name == "visual.proj":
            found["visual_projection.weight"] = value.T.contiguous()
        elif name == "text_projection":
            found["text_projection.weight"] = value.T.contiguous()
        elif block:
            found |= _convert_block(*block.groups(), value)
    return found


def _convert_block(visual: str | None, number: str, name: str, value: Tensor) -> dict[str, Tensor]:
    prefix = f"{'vision' if visual else 'text'}_model.encoder.layers.{number}"
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{prefix}.self_attn.{letter}_proj.{kind}": part.contiguous() for letter, part in parts}
    stem, _, kind = name.rpartition(".")
    return {f"{prefix}.{_PARTS[stem]}.{kind}": value} if stem in _PARTS else {}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a PyTorch checkpoint, unwrapped from ``state_dict``; runs no code that it may
    hold.

    Raises:
        FaultError: the file is damaged, or holds anything but tensors and plain values.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        state = stored.get("state_dict", stored)
        return {str(name): value.float() for name, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:
        raise damaged(path, error) from error


def load(device: str = "cpu") -> ClipFit:
    """Return the reward, the cosine of picture and caption.

    Source: Wu et al., Human Preference Score v2, 2023; weights of version 2.1.
    """
    architecture = CLIP_HUGE.folder()
    state = convert_open_clip(read_checkpoint(HPS.folder() / HPS.files[0]))
    model = read_model(architecture, state, "HPSv2.1")
    pixels = Preprocess(model.config.vision_config.image_size, eight_bits=False)
    return ClipFit(ClipTowers(model, read_tokenizer(architecture), pixels, device))
