r"""Compare a picture with its caption: graded partial credit for learning, exactness for reporting.

Required and detected objects are matched one to one. A match earns half for the shape and half for the colour
(a required object without a colour earns everything for its shape, if its colour is a clear one). With n
required and m detected objects,

    objects = Σ matched credit / max(n, m)

so that missing and extra objects both cost. A relation is graded by the angle of the displacement: full
credit up to the diagonal, falling to none at a right angle, times the credit of the two matched objects:

    fraction = objects                         without a relation
    fraction = ¾ objects + ¼ relation          with one

Exact means fraction 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import linear_sum_assignment

from trainers.shapes.detector import UNKNOWN, Detected, detect
from trainers.shapes.grammar import CaptionSpec, ObjectSpec, parse

RELATION_SHARE = 0.25
_AXIS = {"left of": (-1.0, 0.0), "right of": (1.0, 0.0), "above": (0.0, -1.0), "below": (0.0, 1.0)}
_FULL_CREDIT = float(np.cos(np.pi / 4)) - 0.01


@dataclass(frozen=True)
class Verdict:
    """How well a picture shows its caption: partial credit in [0, 1], and whether everything is right."""

    fraction: float
    exact: bool


def check(image: np.ndarray, prompt: str) -> Verdict:
    """Judge one picture.

    Args:
        image: (H, W, 3) uint8 in [0, 255] or float in [0, 1].
        prompt: a caption of the grammar.

    Returns:
        Partial credit and exactness.

    Raises:
        ValueError: the prompt is outside the grammar.
    """
    return judge(detect(image), parse(prompt))


def judge(found: Sequence[Detected], spec: CaptionSpec) -> Verdict:
    """Judge detected objects against a caption's meaning."""
    required = spec.required
    if not found:
        return Verdict(0.0, False)
    credit = np.array([[_credit(need, got) for got in found] for need in required])
    rows, columns = linear_sum_assignment(credit, maximize=True)
    matched = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    fraction = float(credit[rows, columns].sum()) / max(len(required), len(found))
    if spec.relation:
        relation = 0.0
        if len(matched) == 2:
            earned = min(credit[row, column] for row, column in matched.items())
            relation = float(earned) * _relation(found[matched[0]], found[matched[1]], spec.relation)
        fraction = (1 - RELATION_SHARE) * fraction + RELATION_SHARE * relation
    return Verdict(fraction, fraction > 1 - 1e-6)


def _credit(need: ObjectSpec, got: Detected) -> float:
    color = got.color == need.color if need.color else got.color != UNKNOWN
    if not need.color:
        return float(got.shape == need.shape) * (1.0 if color else 0.5)
    return 0.5 * (got.shape == need.shape) + 0.5 * color


def _relation(first: Detected, second: Detected, relation: str) -> float:
    dx, dy = first.x - second.x, first.y - second.y
    ax, ay = _AXIS[relation]
    cosine = (dx * ax + dy * ay) / max(float(np.hypot(dx, dy)), 1e-9)
    return float(np.clip(cosine / _FULL_CREDIT, 0.0, 1.0))


def score_batch(images: np.ndarray, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Judge a batch.

    Args:
        images: (B, H, W, 3) uint8.
        prompts: B captions.

    Returns:
        Partial credits, float32 (B,), and exactness, bool (B,).
    """
    verdicts = [
        judge(_seen(image.tobytes(), image.shape), parse(prompt))
        for image, prompt in zip(images, prompts, strict=True)
    ]
    return (
        np.array([verdict.fraction for verdict in verdicts], dtype=np.float32),
        np.array([verdict.exact for verdict in verdicts], dtype=bool),
    )


@lru_cache(maxsize=512)
def _seen(content: bytes, shape: tuple[int, ...]) -> tuple[Detected, ...]:
    # Partial credit and exactness are often asked of the same pictures, one after the other.
    return detect(np.frombuffer(content, dtype=np.uint8).reshape(shape))
