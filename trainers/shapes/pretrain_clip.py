"""Pre-train ``tiny-clip``: a CLIP model whose similarity follows how well a picture shows its caption.

Contrastive, as CLIP: pictures against captions of the same batch, both ways. Each picture additionally meets
``HARD`` near captions: its own with one word changed (a colour, a shape, the count, the relation) or the two
objects swapped. Any caption that happens to be true of a picture is left out of that picture's negatives. The
number to read is the snapshot's correlation with the checker's partial credit over true, near and random
captions.

The model is to be *followed* as a reward, so what its gradient asks for has to look like something: every
picture is shifted by the worst small change one gradient step finds before it is learned. Without this,
climbing the similarity breaks pictures instead of repairing them (docs/LOG.md). Sources: Wong et al., Fast is
better than free, arXiv 2001.03994, for one step from a random start; Santurkar et al., Image synthesis with a
single (robust) classifier, arXiv 1906.09453, for gradients that can be followed.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPVisionConfig

from trainers.shapes.checker import judge
from trainers.shapes.detector import Detected
from trainers.shapes.folders import replace_folder, set_float32
from trainers.shapes.grammar import COLORS, OPPOSITE, SHAPES, CaptionSpec, render_caption
from trainers.shapes.pool import tokenize
from trainers.shapes.render import render
from trainers.shapes.scenes import Scene, sample_caption, sample_scene, sample_spec, true_captions
from trainers.shapes.text import text_config
from trainers.shapes.tokenizer import build_tokenizer
from trainers.shapes.training import Draw, Settings, train

WIDTH, HARD = 96, 3
RADIUS = 3.0  # largest shift of a picture, L2 over its pixels in [0, 1]; repainting a shape is about 13
MEAN, STD = (0.75, 0.75, 0.75), (0.3, 0.3, 0.3)
DEFAULTS = {"batch": 64, "lr": 1.5e-3, "threads": 2}


def build_clip() -> CLIPModel:
    """Return the untrained model, about 1 M parameters: 64×64 pictures in 8×8 patches."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=WIDTH // 32,
        image_size=64,
        patch_size=8,
        hidden_act="gelu",
        projection_dim=WIDTH,
    )
    text = text_config(WIDTH, layers=3)
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    )


def build_processor() -> CLIPProcessor:
    """Return the processor: no cropping, any picture is resized to 64×64."""
    size = {"height": 64, "width": 64}
    images = CLIPImageProcessor(
        size=size, crop_size=size, do_center_crop=False, image_mean=MEAN, image_std=STD, do_convert_rgb=True
    )
    return CLIPProcessor(image_processor=images, tokenizer=build_tokenizer())


def pretrain(settings: Settings) -> None:
    """Train the model and write it with its processor to ``settings.out / "model"``."""
    torch.manual_seed(settings.seed)
    model = build_clip().to(settings.device)
    if settings.start:
        finished = CLIPModel.from_pretrained(settings.start, dtype=torch.float32)
        model.load_state_dict(finished.state_dict())
    train(settings, model, lambda model, draw: _loss(model, draw, settings), snapshot)


def near_caption(spec: CaptionSpec, rng: np.random.Generator) -> CaptionSpec | None:
    """Change one thing about a caption; ``None`` when the change drawn does not apply or changes nothing."""
    objects, at = list(spec.objects), int(rng.integers(len(spec.objects)))
    change = ("color", "shape", "order", "relation", "count")[rng.integers(5)]
    relation, count = spec.relation, spec.count
    if change == "color" and objects[at].color:
        objects[at] = replace(objects[at], color=COLORS[rng.integers(len(COLORS))])
    elif change == "shape":
        objects[at] = replace(objects[at], shape=SHAPES[rng.integers(len(SHAPES))])
    elif change == "order" and len(objects) == 2 and all(noun.color for noun in objects):
        # Swapped colours, or the mirrored relation.
        first, second = objects
        swapped = [replace(first, color=second.color), replace(second, color=first.color)]
        objects = swapped if rng.random() < 0.5 else [second, first]
    elif change == "relation" and relation:
        relation = tuple(OPPOSITE)[rng.integers(4)]
    elif change == "count" and spec.category == "counting":
        count = int(rng.integers(1, 5))
    changed = CaptionSpec(spec.category, tuple(objects), relation, count)
    return None if changed == spec or _says_nothing(changed) else changed


def _says_nothing(spec: CaptionSpec) -> bool:
    """Return whether the two objects of a pair can no longer be told apart, which no caption says."""
    if len(spec.objects) < 2:
        return False
    first, second = spec.objects
    return first == second or (spec.category == "two_object" and first.shape == second.shape)


def truth(scene: Scene, spec: CaptionSpec) -> float:
    """Return the checker's partial credit of a perfect drawing of a scene for any caption."""
    return judge([Detected(o.shape, o.color, o.x, o.y, o.size) for o in scene.objects], spec).fraction


def draw_batch(rng: np.random.Generator, count: int) -> tuple[list[Scene], list[CaptionSpec]]:
    """Return scenes and captions: first one true caption per scene, then ``HARD`` near ones per scene."""
    scenes = [sample_scene(rng) for _ in range(count)]
    true = [sample_caption(scene, rng) for scene in scenes]
    near = [_some_near(spec, rng) for spec in true for _ in range(HARD)]
    return scenes, true + near


def _some_near(spec: CaptionSpec, rng: np.random.Generator) -> CaptionSpec:
    while (near := near_caption(spec, rng)) is None:
        pass
    return near


def _pictures(scenes: list[Scene], device: str) -> torch.Tensor:
    rendered = np.stack([render(scene) for scene in scenes])
    return torch.from_numpy(rendered).permute(0, 3, 1, 2).float().to(device) / 255


def _embed_pictures(model: CLIPModel, pictures: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values, device=pictures.device)[:, None, None] for values in (MEAN, STD))
    pooled = model.vision_model(pixel_values=(pictures - mean) / std).pooler_output
    return _unit(model.visual_projection(pooled))


def _embed_captions(model: CLIPModel, specs: list[CaptionSpec]) -> torch.Tensor:
    tokens = torch.from_numpy(tokenize([render_caption(spec) for spec in specs])).long()
    pooled = model.text_model(input_ids=tokens.to(model.device)).pooler_output
    return _unit(model.text_projection(pooled))


def _loss(model: CLIPModel, draw: Draw, settings: Settings) -> torch.Tensor:
    scenes, specs = draw_batch(draw.data, settings.batch)
    pictures = _pictures(scenes, settings.device)
    # A caption that is true of another picture is no negative for it.
    also_true = np.array([[spec in true for spec in specs] for true in map(true_captions, scenes)])
    masked = torch.from_numpy(also_true & ~np.eye(len(scenes), len(specs), dtype=bool)).to(pictures.device)
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.device == "cpu" and settings.bfloat16):
        captions = _embed_captions(model, specs)
        shifted = _shifted(model, pictures, captions.detach(), masked, draw.noise)
        return _contrast(model, _embed_pictures(model, shifted), captions, masked)


def _contrast(model: CLIPModel, pictures, captions, masked) -> torch.Tensor:
    # Similarities in float32: at a scale of 14 and more, bfloat16 would round neighbours together.
    with torch.autocast("cpu", enabled=False):
        logits = (pictures @ captions.T * model.logit_scale.exp()).masked_fill(masked, -1e4)
        target, square = torch.arange(len(logits), device=logits.device), logits.T[: len(logits)]
        cross_entropy = nn.functional.cross_entropy
        return 0.5 * (cross_entropy(logits, target) + cross_entropy(square, target))


def _shifted(model: CLIPModel, pictures, captions, masked, noise: torch.Generator) -> torch.Tensor:
    """Return the pictures, each moved within its own radius U(0, RADIUS) to where its captions fit worst."""
    rows = (len(pictures), 1, 1, 1)
    radius = RADIUS * torch.rand(rows, generator=noise).to(pictures)
    start = torch.randn(pictures.shape, generator=noise).to(pictures)
    start = (0.5 * radius * start / _norm(start)).requires_grad_(True)
    loss = _contrast(model, _embed_pictures(model, pictures + start), captions, masked)
    (gradient,) = torch.autograd.grad(loss, start)
    moved = start.detach() + radius * gradient / _norm(gradient).clamp(min=1e-12)
    moved = moved * (radius / _norm(moved).clamp(min=1e-12)).clamp(max=1.0)
    return (pictures + moved).clamp(0.0, 1.0)


def _norm(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _unit(features: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(features.float(), dim=-1)


@torch.no_grad()
def snapshot(model: CLIPModel, folder: Path) -> dict:
    """Save model and processor in float16; return retrieval accuracy and correlation with the checker."""
    numbers = measure(model)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    saved = build_clip().half()
    saved.load_state_dict(model.state_dict())
    saved.save_pretrained(partial)
    build_processor().save_pretrained(partial)
    set_float32(partial / "config.json")
    replace_folder(partial, folder)
    return numbers


@torch.no_grad()
def measure(model: CLIPModel, count: int = 64, seed: int = 999) -> dict[str, float]:
    """Return retrieval accuracies in a batch and Pearson's r between similarity and partial credit."""
    rng = np.random.default_rng(seed)
    scenes, specs = draw_batch(rng, count)
    specs += [sample_spec(rng) for _ in scenes]
    pictures = _embed_pictures(model, _pictures(scenes, model.device))
    logits = (pictures @ _embed_captions(model, specs).T).cpu().numpy()
    credit = np.array([[truth(scene, spec) for spec in specs] for scene in scenes])
    best = logits[:, :count].argmax(1)
    own, columns = (
        np.arange(count),
        [list(range(i * HARD + count, (i + 1) * HARD + count)) for i in range(count)],
    )
    harder = np.array([(logits[i, cs] < logits[i, i]) | (credit[i, cs] == 1) for i, cs in enumerate(columns)])
    return {
        "retrieval": float((credit[own, best] == 1).mean()),
        "beats_near": float(harder.mean()),
        "correlation": float(np.corrcoef(logits.ravel(), credit.ravel())[0, 1]),
    }
