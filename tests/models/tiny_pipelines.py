"""Tiny pipelines of the real diffusers and transformers classes, one of every family, saved like checkpoints.

Denoiser, autoencoder and scheduler are those of ``trainers.models.sizes``; text encoders and tokenizers are
built here, because random weights for the bench need none.
"""

import string

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from trainers.models.random_weights import build_part
from trainers.models.tiny_sizes import TINY
from trainers.shapes.tokenizer import build_tokenizer

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def clip(kind, hidden=16):
    tokenizer = build_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=32,
        projection_dim=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config), tokenizer


def t5(hidden):
    letters = [(letter, -3.0) for letter in string.ascii_lowercase]
    tokenizer = T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters], extra_ids=0
    )
    config = T5Config(vocab_size=len(tokenizer), d_model=hidden, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config), tokenizer


_CAUSAL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def gemma():
    symbols = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.ascii_lowercase]
    tokenizer = GemmaTokenizer(vocab={symbol: number for number, symbol in enumerate(symbols)}, merges=[])
    return Gemma2Model(Gemma2Config(vocab_size=len(tokenizer), **_CAUSAL)), tokenizer


def qwen():
    symbols = [*bytes_to_unicode().values(), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(vocab={symbol: number for number, symbol in enumerate(symbols)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return Qwen3Model(Qwen3Config(vocab_size=len(tokenizer), **_CAUSAL)), tokenizer


def text_parts(name):
    """Return the encoders and tokenizers of an architecture, by the pipeline's names."""
    if name in ("tiny-sd15", "tiny-sd21"):
        encoders = [clip(CLIPTextModel)]
    elif name == "tiny-sdxl":
        encoders = [clip(CLIPTextModel), clip(CLIPTextModelWithProjection)]
    elif name == "tiny-sd3":
        encoders = [clip(CLIPTextModelWithProjection), clip(CLIPTextModelWithProjection), t5(32)]
    elif name == "tiny-flux":
        encoders = [clip(CLIPTextModel), t5(16)]
    else:
        encoders = [{"tiny-sana": gemma, "tiny-pixart": lambda: t5(16), "tiny-z-image": qwen}[name]()]
    parts = {}
    for number, (encoder, tokenizer) in enumerate(encoders):
        tail = f"_{number + 1}" if number else ""
        parts |= {f"text_encoder{tail}": encoder.eval(), f"tokenizer{tail}": tokenizer}
    return parts


def build(name):
    """Return a whole pipeline with random weights."""
    size = TINY[name]
    kind = getattr(diffusers, size.pipeline_class)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = "unet" if size.network[0].startswith("UNet") else "transformer"
        given = {network: build_part(size.network), "vae": build_part(size.vae), **text_parts(name)}
        for parameter in given[network].parameters():  # so that guidance and prompts show in the pictures
            parameter.data *= 1.5
    given["scheduler"] = build_part(size.scheduler)
    if name in ("tiny-sd15", "tiny-sd21"):
        given |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return kind(**given)


def save(name, folder):
    """Save a pipeline as a checkpoint and return its folder."""
    build(name).save_pretrained(folder, safe_serialization=True)
    return folder
