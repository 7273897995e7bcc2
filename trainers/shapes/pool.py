"""The latent models' training data: scenes encoded once, with several true captions each.

A pool holds the scaled latent means of N pictures and ``CAPTIONS`` token rows per picture, so that one
picture teaches its position, its colours and its shapes. It is cached next to the run folders that share it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from trainers.shapes.grammar import render_caption
from trainers.shapes.pretrain_vae import to_tensor
from trainers.shapes.render import render
from trainers.shapes.scenes import sample_caption, sample_scene
from trainers.shapes.tokenizer import build_tokenizer
from trainers.shapes.training import Draw

CAPTIONS = 6
DROPPED = 0.1  # share of empty captions, so that classifier-free guidance has an unconditional model
_CHUNK = 250


@dataclass(frozen=True)
class Pool:
    """Latents float16 (N, 4, 8, 8), tokens int16 (N, CAPTIONS, L), the empty caption's tokens (L,)."""

    latents: np.ndarray
    tokens: np.ndarray
    empty: np.ndarray

    def batch(self, draw: Draw, count: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return latents float32 (B, 4, 8, 8) and tokens int64 (B, L), a tenth of the captions empty."""
        rows = draw.data.integers(len(self.latents), size=count)
        tokens = self.tokens[rows, draw.data.integers(CAPTIONS, size=count)]
        tokens = np.where(draw.data.random((count, 1)) < DROPPED, self.empty, tokens)
        latents = torch.from_numpy(self.latents[rows]).float()
        return latents.to(device), torch.from_numpy(tokens).long().to(device)


def load_pool(folder: Path, vae_folder: Path, count: int, seed: int, device: str) -> Pool:
    """Return the cached pool, or draw, encode and cache it."""
    path = folder / f"pool-{count}-{seed}.npz"
    if not path.exists():
        pool = _build(vae_folder, count, seed, device)
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, latents=pool.latents, tokens=pool.tokens, empty=pool.empty)
        os.replace(partial, path)
    with np.load(path) as arrays:
        return Pool(arrays["latents"], arrays["tokens"], arrays["empty"])


@torch.no_grad()
def _build(vae_folder: Path, count: int, seed: int, device: str) -> Pool:
    # A stream of its own: training draws use (seed, step).
    rng = np.random.default_rng((seed, 2**31))
    vae = AutoencoderKL.from_pretrained(vae_folder, torch_dtype=torch.float32)
    vae = vae.to(device, memory_format=torch.channels_last)
    latents, captions = [], []
    while len(latents) * _CHUNK < count:
        scenes = [sample_scene(rng) for _ in range(_CHUNK)]
        pictures = to_tensor(np.stack([render(scene) for scene in scenes])).to(device)
        means = vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist.mean
        scaled = (means - vae.config.shift_factor) * vae.config.scaling_factor
        latents.append(scaled.half().cpu().contiguous().numpy())
        for scene in scenes:
            own = [scene.spec] + [sample_caption(scene, rng) for _ in range(CAPTIONS - 1)]
            captions.extend(render_caption(spec) for spec in own)
    tokens = tokenize(captions).reshape(-1, CAPTIONS, tokenize([""]).shape[1])
    return Pool(np.concatenate(latents)[:count], tokens[:count], tokenize([""])[0])


def tokenize(captions: list[str]) -> np.ndarray:
    """Return int16 tokens (N, L), padded exactly as the pipelines pad."""
    return np.array([_token_row(caption) for caption in captions], dtype=np.int16)


@cache
def _token_row(caption: str) -> tuple[int, ...]:
    # The grammar has fewer than two thousand captions, so all of them stay cached.
    return tuple(_tokenizer()(caption, padding="max_length", truncation=True)["input_ids"])


@cache
def _tokenizer() -> CLIPTokenizer:
    return build_tokenizer()
