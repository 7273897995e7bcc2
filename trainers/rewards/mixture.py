"""Weighted sums of rewards, written "shapes:1,tiny_clip:0.2".

A single reward is a mixture of one, so the rest of the engine knows only mixtures. Every value passes here,
so this is where a non-finite one is caught. Imports no torch: the page checks a mixture before a run starts.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.errors import FaultError, InputError, StudioError
from trainers.failures import known_cause, out_of_memory
from trainers.interruption import OutOfTime, StopRequested
from trainers.registry import Registry
from trainers.rewards.contract import Reward, RewardSpec
from trainers.rewards.own import comma_in, own_name, own_problems, refusal

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.config import RunConfig

WEIGHT_LOW, WEIGHT_HIGH = 1e-6, 1e6


@dataclass(frozen=True)
class Part:
    """One reward of a mixture."""

    spec: RewardSpec
    weight: float
    reward: Reward

    @property
    def name(self) -> str:
        """The key of the reward."""
        return self.spec.name


class Mixture(Reward):
    """r(x, c) = Σ wᵢ · rᵢ(x, c).

    Args:
        parts: the rewards with their weights.

    Raises:
        FaultError: when called, if a reward fails or returns a value that is not finite.
    """

    def __init__(self, parts: Sequence[Part]):
        self.parts = tuple(parts)

    @property
    def differentiable(self) -> bool:
        """Whether gradients of the whole sum reach the pictures: every part must pass them."""
        return all(part.spec.differentiable for part in self.parts)

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value the sum can take."""
        ends = [sorted((p.weight * p.spec.low, p.weight * p.spec.high)) for p in self.parts]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    def __call__(self, images, prompts, metadata=None):
        scores = self.components(images, prompts, metadata)
        total = sum(part.weight * scores[part.name] for part in self.parts)
        # The gradient of only some parts would be the gradient of another reward.
        return total if self.differentiable else total.detach()

    def components(
        self, images: Tensor, prompts: Sequence[str], metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """Score with each part alone, unweighted.

        Args:
            images: (B, 3, H, W) in [0, 1].
            prompts: the B captions.
            metadata: passed on to each part.

        Returns:
            Name of the part → (B,) float32.
        """
        return {part.name: _finite(part.name, _score(part, images, prompts, metadata)) for part in self.parts}

    def try_out(self, images: Tensor, prompts: Sequence[str], gradient: bool) -> None:
        """Score images once for whatever that may show: a reward that fails does so before any are drawn.

        Args:
            images: (B, 3, H, W) in [0, 1], which need not look like anything; their values are not read.
            prompts: the B captions.
            gradient: whether the gradient is to be read as well.

        Raises:
            FaultError: if a reward fails.
        """
        import torch

        for part in self.parts:
            with torch.no_grad():
                _score(part, images.clone(), prompts, None)
            if gradient and part.spec.differentiable:
                # Of one image: more at once may not fit where training takes them one by one.
                leaf = images[:1].clone().requires_grad_()
                with torch.enable_grad(), _named(part):
                    torch.autograd.grad(part.reward(leaf, prompts[:1], None).sum(), leaf)

    def interrupt_with(self, check):
        for part in self.parts:
            part.reward.interrupt_with(check)


def parse_mixture(text: str, rewards: Registry[RewardSpec]) -> tuple[tuple[str, float], ...]:
    """Read "name:weight,name:weight"; a bare name has weight 1.

    Args:
        text: the mixture as typed; a name may be a function in a file, "file.py:function". A negative
            weight asks for less of a reward.
        rewards: the table of valid names.

    Returns:
        (name, weight) per part, in the order written.

    Raises:
        InputError: with a sentence for every problem.
    """
    parts: list[tuple[str, float]] = []
    problems: list[str] = []
    for piece in text.split(","):
        name, colon, number = _split(piece)
        if not name:
            problems.append(
                f"'{text}' has an empty part; write for example 'shapes' or 'shapes:1,tiny_clip:0.2'."
            )
            continue
        if own_name(name):
            problems += own_problems(name)
        elif name not in rewards:
            problems.append(_comma_in_a_path(text) or rewards.unknown(name))
        if any(name == earlier for earlier, _ in parts):
            problems.append(f"The reward '{name}' is given twice; add the weights and write it once.")
        weight = _weight(number) if colon else 1.0
        if weight is None:
            problems.append(
                f"The weight '{number}' of '{name}' must be a number of size {WEIGHT_LOW:g} to "
                f"{WEIGHT_HIGH:g}; leave a reward out instead of giving it 0."
            )
        parts.append((name, weight or 0.0))
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return tuple(parts)


def load_mixture(
    text: str, device: str, rewards: Registry[RewardSpec], config: RunConfig | None = None
) -> Mixture:
    """Read a mixture and load its parts, each onto the device and with the settings of the run if it reads
    any.
    """
    parts = []
    for name, weight in parse_mixture(text, rewards):
        spec = rewards.get(name)
        load = spec.load()
        parts.append(Part(spec, weight, load(device, config) if spec.configured else load(device)))
    return Mixture(parts)


def obstacles(text: str, config: RunConfig, rewards: Registry[RewardSpec], ask: bool = True) -> list[str]:
    """Return a sentence for everything that keeps the parts of a mixture from working on this machine.

    Args:
        text: the mixture; one that cannot be read has no obstacles, but problems of its own.
        config: the settings of the run.
        rewards: the table of valid names.
        ask: whether the network may be asked.
    """
    rows = _rows(text, rewards)
    return list(dict.fromkeys(told for row in rows for told in row.obstacles(config, ask)))


def unscorable(
    text: str, prompts: Sequence[str], config: RunConfig, rewards: Registry[RewardSpec]
) -> list[str]:
    """Return a sentence for the first of some prompts that a part of a mixture cannot score; loads nothing.

    Args:
        text: the mixture; one that cannot be read has problems of its own.
        prompts: the prompts.
        config: the settings of the run.
        rewards: the table of valid names.
    """
    rows = _rows(text, rewards)
    return list(dict.fromkeys(told for row in rows for told in row.unscorable(prompts, config)))


def _rows(text: str, rewards: Registry[RewardSpec]) -> list[RewardSpec]:
    """Return the rows of a mixture's parts; none when it cannot be read."""
    try:
        return [rewards.get(name) for name, _ in parse_mixture(text, rewards)]
    except InputError:
        return []


def _comma_in_a_path(text: str) -> str:
    """Return the sentence about a comma in the path of a function's file; empty when there is none."""
    whole = own_name(text.replace(",", "\0"))
    path = whole["file"].replace("\0", ",") if whole else ""
    return comma_in(path) if whole and not refusal("") and Path(path).expanduser().is_file() else ""


def _split(piece: str) -> tuple[str, str, str]:
    """Split "name:weight"; the name of a function in a file has a colon itself."""
    own = own_name(piece)
    if own:
        _, colon, number = piece.strip()[own.end() :].partition(":")
        return own[0], colon, number.strip()
    name, colon, number = (word.strip() for word in piece.partition(":"))
    return name, colon, number


def _weight(text: str) -> float | None:
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if math.isfinite(weight) and WEIGHT_LOW <= abs(weight) <= WEIGHT_HIGH else None


def _score(part: Part, images, prompts, metadata):
    with _named(part):
        return part.reward(images, prompts, metadata)


@contextlib.contextmanager
def _named(part: Part) -> Iterator[None]:
    """Make a sentence that names a reward of what it raises; a lack of memory stays one."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (StudioError, StopRequested, OutOfTime)) or out_of_memory(error):
            raise
        words = known_cause(error) or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise FaultError(f"The reward '{part.name}' failed. {words}") from error


def _finite(name: str, values: Tensor) -> Tensor:
    bad = ~values.isfinite()
    if bad.any():
        index = int(bad.nonzero()[0])
        raise FaultError(f"The reward '{name}' gave {values[index].item()} for picture {index} of the batch.")
    return values
