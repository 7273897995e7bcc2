"""The tiny pipelines' text encoders, trained from scratch together with their denoiser."""

from __future__ import annotations

from transformers import CLIPTextConfig

from trainers.shapes.tokenizer import MAX_LENGTH, build_tokenizer


def text_config(hidden: int, layers: int, projection: int | None = None) -> CLIPTextConfig:
    """Return the configuration of a small CLIP text model over the shapes vocabulary."""
    tokenizer = build_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        projection_dim=projection or hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        max_position_embeddings=MAX_LENGTH,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
