"""Pre-train ``tiny-clip``: a CLIP model whose similarity follows how well a picture shows its caption.

Contrastive, as CLIP: pictures against captions of the same batch, both ways. Each picture additionally meets
``HARD`` near captions: its own with one word changed (a colour, a shape, the count, the relation) or the two
objects swapped. Any caption that happens to be true of a picture is left out of that picture's negatives. The
number to read is the snapshot's correlation with the checker's partial credit over true, near and random
captions.
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
    train(
        settings, build_clip().to(settings.device), lambda model, draw: _loss(model, draw, settings), snapshot
    )


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


def _inputs(scenes: list[Scene], specs: list[CaptionSpec], device: str) -> dict[str, torch.Tensor]:
    pictures = (
        torch.from_numpy(np.stack([render(scene) for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    )
    pictures = (pictures - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    tokens = torch.from_numpy(tokenize([render_caption(spec) for spec in specs])).long()
    return {"pixel_values": pictures.to(device), "input_ids": tokens.to(device)}


def _loss(model: CLIPModel, draw: Draw, settings: Settings) -> torch.Tensor:
    scenes, specs = draw_batch(draw.data, settings.batch)
    inputs = _inputs(scenes, specs, settings.device)
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.device == "cpu" and settings.bfloat16):
        pooled = model.vision_model(pixel_values=inputs["pixel_values"]).pooler_output
        pictures = model.visual_projection(pooled)
        captions = model.text_projection(model.text_model(input_ids=inputs["input_ids"]).pooler_output)
    # Similarities in float32: at a scale of 14 and more, bfloat16 would round neighbours together.
    logits = _unit(pictures) @ _unit(captions).T * model.logit_scale.exp()
    # A caption that is true of another picture is no negative for it.
    also_true = np.array([[spec in true for spec in specs] for true in map(true_captions, scenes)])
    own = np.eye(len(scenes), len(specs), dtype=bool)
    masked = logits.masked_fill(torch.from_numpy(also_true & ~own).to(logits.device), -1e4)
    target = torch.arange(len(scenes), device=logits.device)
    square = masked[:, : len(scenes)]
    return 0.5 * (nn.functional.cross_entropy(masked, target) + nn.functional.cross_entropy(square.T, target))


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
    logits = model(**_inputs(scenes, specs, next(model.parameters()).device)).logits_per_image.cpu().numpy()
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
