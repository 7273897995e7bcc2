"""What a person asks of the playground, checked field by field. Torch-free: the page reads it before loading.

Whether a prompt fits the tokenizer is only known once the model is there; see ``trainers.playground``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trainers.config import FIELDS, MAX_PROMPT_CHARACTERS
from trainers.errors import InputError

MAX_STEPS = 100
MAX_STRENGTH = 1.5
MAX_SEED = FIELDS["seed"].metadata["high"]
MAX_GUIDANCE = FIELDS["guidance_scale"].metadata["high"]


@dataclass(frozen=True)
class Wish:
    """One pair of pictures to draw.

    Attributes:
        prompt: What they show.
        seed: Seed of both.
        steps: Sampling steps.
        guidance: Classifier-free guidance; 1 means none.
        strength: What the trained change is multiplied by on the second picture: 0 is the base model, 1 the
            trained one.
    """

    prompt: str
    seed: int
    steps: int
    guidance: float
    strength: float


class WishError(InputError):
    """Fields of a wish that cannot be fulfilled; ``fields`` maps each one's name to its sentence."""

    def __init__(self, fields: Mapping[str, str]):
        """Keep the sentences by field."""
        self.fields = dict(fields)
        super().__init__(*self.fields.values())


def read_wish(prompt: object, seed: object, steps: object, guidance: object, strength: object) -> Wish:
    """Check what the fields hold, however a browser sent it.

    Raises:
        WishError: With a sentence for each wrong field.
    """
    found: dict[str, str] = {}
    text = prompt.strip() if isinstance(prompt, str) else ""
    if not text:
        found["prompt"] = "Write what the picture should show, for example: a red circle."
    elif len(text) > MAX_PROMPT_CHARACTERS:
        found["prompt"] = f"The prompt has {len(text)} characters; at most {MAX_PROMPT_CHARACTERS} fit."
    ranges = {
        "seed": (seed, 0, MAX_SEED, True),
        "steps": (steps, 1, MAX_STEPS, True),
        "guidance": (guidance, 0, MAX_GUIDANCE, False),
        "strength": (strength, 0, MAX_STRENGTH, False),
    }
    for name, (value, low, high, whole) in ranges.items():
        kind = "a whole number" if whole else "a number"
        fits = _is_number(value) and low <= value <= high and (not whole or value == int(value))
        if not fits:
            found[name] = f"Write {kind} from {low} to {_digits(high)}."
    if found:
        raise WishError(found)
    return Wish(text, int(seed), int(steps), float(guidance), float(strength))


def _digits(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)  # a whole number may be too large for a float
