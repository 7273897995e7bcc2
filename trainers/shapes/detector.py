"""Read a picture back: which shapes, in which colours, where and how large.

Foreground is distance to the background (median of the picture's border), objects are its connected
components, colour is the hue of their core pixels, shape is the template of equal area and centre of mass
that overlaps best. A component that no template fits is reported as "unknown", and so is a colour between the
classes: a malformed object must not count as a good one. Components of a few pixels are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from trainers.shapes.grammar import SHAPES
from trainers.shapes.render import coverage
from trainers.shapes.scenes import HUES

UNKNOWN = "unknown"
FOREGROUND = 0.28  # distance to the background (largest channel difference) from which a pixel is an object's
SPECK = 0.0045  # components below this share of the picture are ignored
MIN_OVERLAP = 0.82  # soft intersection over union with the best template
MIN_MARGIN = 0.01  # how much better the best template must be than the second
HUE_TOLERANCE = 24.0  # degrees
MIN_PURITY = 0.8  # share of core pixels that must agree on the colour
MIN_SATURATION = 0.35

_NAMES = tuple(HUES)
_HUES = np.array(tuple(HUES.values()), dtype=np.float32)
# Area in units of size²: gives the template of equal area.
_AREA = {"circle": np.pi, "square": 3.24, "triangle": 1.2 * (1.386 + 0.693)}


@dataclass(frozen=True)
class Detected:
    """One object found in a picture; position and size are fractions of the picture's side."""

    shape: str
    color: str
    x: float
    y: float
    size: float


def detect(image: np.ndarray) -> tuple[Detected, ...]:
    """Find the objects of a picture.

    Args:
        image: (H, W, 3) array, uint8 in [0, 255] or float in [0, 1], H = W.

    Returns:
        Detected objects in scan order; shape or colour is "unknown" where nothing fits.
    """
    picture = np.asarray(image)
    picture = picture.astype(np.float32) / 255 if picture.dtype == np.uint8 else picture.astype(np.float32)
    distance = np.abs(picture - _background(picture)).max(-1)
    labels, count = ndimage.label(distance > FOREGROUND)
    found = []
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[window] == index
        if own.sum() >= SPECK * distance.size:
            found.append(_describe(picture, distance, labels, index, window))
    return tuple(found)


def _background(picture: np.ndarray) -> np.ndarray:
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return np.median(border, axis=0)


def _describe(picture, distance, labels, index: int, window) -> Detected:
    rows, columns = (slice(max(s.start - 1, 0), s.stop + 1) for s in window)
    near, label = distance[rows, columns], labels[rows, columns]
    core_level = np.percentile(near[label == index], 75)
    # Soft edges: a pixel half as far from the background as the core is half covered.
    alpha = np.minimum(near / core_level, 1) * ((label == index) | (label == 0))
    alpha[(label == 0) & (alpha < 0.06)] = 0
    area = float(alpha.sum())
    xs = np.arange(columns.start, columns.start + alpha.shape[1], dtype=np.float32) + 0.5
    ys = np.arange(rows.start, rows.start + alpha.shape[0], dtype=np.float32) + 0.5
    x, y = float(alpha.sum(0) @ xs) / area, float(alpha.sum(1) @ ys) / area
    side = len(labels)
    shape = _shape(alpha, xs[None, :] - x, ys[:, None] - y, area)
    color = _color(picture[rows, columns][alpha > 0.85])
    return Detected(shape, color, x / side, y / side, float(np.sqrt(area / np.pi)) / side)


def _shape(alpha: np.ndarray, dx: np.ndarray, dy: np.ndarray, area: float) -> str:
    overlaps = {}
    for shape in SHAPES:
        template = coverage(shape, dx, dy, np.sqrt(area / _AREA[shape]))
        overlaps[shape] = np.minimum(alpha, template).sum() / np.maximum(alpha, template).sum()
    second, best = sorted(overlaps, key=overlaps.get)[-2:]
    fits = overlaps[best] >= MIN_OVERLAP and overlaps[best] - overlaps[second] >= MIN_MARGIN
    return best if fits else UNKNOWN


def _color(core: np.ndarray) -> str:
    if not len(core):
        return UNKNOWN
    high, low = core.max(-1), core.min(-1)
    spread = high - low
    red, green, blue = core[:, 0], core[:, 1], core[:, 2]
    safe = np.maximum(spread, 1e-6)
    hue = np.where(
        high == red,
        (green - blue) / safe % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    apart = np.abs((60 * hue[:, None] - _HUES + 180) % 360 - 180)
    nearest = apart.argmin(1)
    valid = (apart.min(1) <= HUE_TOLERANCE) & (spread >= MIN_SATURATION * high)
    votes = np.bincount(nearest[valid], minlength=len(_NAMES))
    best = int(votes.argmax())
    return _NAMES[best] if votes[best] >= MIN_PURITY * len(core) else UNKNOWN
