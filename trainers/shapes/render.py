"""Draw a scene: anti-aliased flat shapes on a plain background, in numpy.

Coverage of a pixel is read from the signed distance of its centre to the outline (a box filter one pixel
wide), the same function that the detector uses for its templates. No shading, outlines or textures.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from trainers.shapes.scenes import BOXES, Scene


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    centres = np.arange(size, dtype=np.float32) + 0.5
    return centres[None, :], centres[:, None]


def coverage(shape: str, dx: np.ndarray, dy: np.ndarray, size: float) -> np.ndarray:
    """Return how much of each pixel a shape covers.

    Args:
        shape: "circle", "square" or "triangle".
        dx: pixel centre minus the shape's centre of mass, in pixels; broadcasts with ``dy``.
        dy: the same downwards.
        size: the shape's size in pixels (a circle's radius; the others have about its area).

    Returns:
        float32 array in [0, 1], broadcast shape of ``dx`` and ``dy``.
    """
    left, top, _, bottom = BOXES[shape]
    if shape == "circle":
        inside = size - np.sqrt(dx * dx + dy * dy)
    elif shape == "square":
        side = left * size
        # Exact for an axis-aligned box: the product of two one-dimensional coverages.
        return np.clip(side - np.abs(dx) + 0.5, 0, 1) * np.clip(side - np.abs(dy) + 0.5, 0, 1)
    else:
        height = (top + bottom) * size
        half = left * size
        norm = float(np.hypot(height, half))
        slanted = (half * (dy + top * size) - height * np.abs(dx)) / norm
        inside = np.minimum(slanted, bottom * size - dy)
    return np.clip(inside + 0.5, 0, 1)


def render(scene: Scene, size: int = 64) -> np.ndarray:
    """Draw a scene.

    Args:
        scene: what to draw.
        size: side of the square picture in pixels.

    Returns:
        uint8 array (size, size, 3).
    """
    xs, ys = _grid(size)
    picture = np.full((size, size, 3), scene.background, dtype=np.float32)
    for obj in scene.objects:
        alpha = coverage(obj.shape, xs - obj.x * size, ys - obj.y * size, obj.size * size)[..., None]
        picture += alpha * (np.asarray(obj.rgb, dtype=np.float32) - picture)
    return (picture * 255 + 0.5).astype(np.uint8)
