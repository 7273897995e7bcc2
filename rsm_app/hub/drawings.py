"""The two pictures that a model card shows beside the single ones: a grid of pairs and the reward's curve."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from rsm_app.hub import lettering
from trainers.errors import InputError
from trainers.image_files import UnreadableImage, load_image

_SIDE, _GAP, _CAPTION, _COLUMNS = 144, 6, 42, 3
_LETTERS = 15  # their size in pixels
_INK, _PAPER = "#24292f", "#ffffff"


def grid(pairs: Sequence[tuple[str, Path, Path]]) -> bytes:
    """Draw pairs side by side, before on the left, each with its prompt, as a PNG.

    Args:
        pairs: Prompt, picture before, picture after.
    """
    columns = min(_COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    width, height = 2 * _SIDE + 3 * _GAP, _SIDE + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * width, rows * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (prompt, before, after) in enumerate(pairs):
        left, top = number % columns * width + _GAP, number // columns * height + _GAP
        for place, path in enumerate((before, after)):
            sheet.paste(_fitted(path), (left + place * (_SIDE + _GAP), top))
        lines = lettering.wrapped(lettering.caption(prompt, number + 1), _LETTERS, 2 * _SIDE)
        for line, text in enumerate(lines):
            pen.text((left, top + _SIDE + 2 + 19 * line), text, _INK, lettering.font(_LETTERS))
    return _png(sheet)


def curve(metrics: Sequence[Mapping], probes: Sequence[Mapping], title: str) -> bytes:
    """Draw the reward over the updates, in training and on held-out prompts, as a PNG.

    Args:
        metrics: Lines of ``metrics.jsonl``.
        probes: Lines of ``probes.jsonl``; may be empty.
        title: What the reward is called.
    """
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    steps = [line["step"] for line in metrics if "reward_mean" in line]
    axis.plot(steps, [line["reward_mean"] for line in metrics if "reward_mean" in line], lw=1.2)
    axis.set_xlabel("update")
    axis.set_ylabel(lettering.label(title, "reward"), parse_math=False)  # a "$" is a "$"
    axis.grid(alpha=0.3)
    names = ["training pictures"]
    looks = [(look["step"], fmean(look["reward"])) for look in probes if look.get("reward")]
    if len(looks) > 1:
        axis.plot(*zip(*looks, strict=True), "o-", ms=4, lw=1.6)
        names.append("a few held-out prompts")
    axis.legend(axis.get_lines(), names, frameon=False)
    target = io.BytesIO()
    figure.savefig(target, dpi=120, metadata={"Software": None})
    return target.getvalue()


def _fitted(path: Path) -> Image.Image:
    """Return a picture that fills a square; small ones are enlarged in whole pixels."""
    try:
        picture = load_image(path)
    except UnreadableImage:
        raise InputError(
            f"The picture {path.name} of this run is damaged, so the run cannot be published."
        ) from None
    method = Image.Resampling.NEAREST if max(picture.size) < _SIDE else Image.Resampling.LANCZOS
    scale = _SIDE / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], method)
    square = Image.new("RGB", (_SIDE, _SIDE), _PAPER)
    square.paste(picture, ((_SIDE - picture.width) // 2, (_SIDE - picture.height) // 2))
    return square


def _png(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG", optimize=True)
    return target.getvalue()
