"""h(t) of chosen methods over the laboratory's schedule: where in the schedule each of them learns.

Uses ``trainers.influence``, with β = 1 for all; a row's own discount and bounds stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from trainers.config import RunConfig
from trainers.influence import influence, trained_steps
from trainers.lab.choices import STEPS, THIRDS
from trainers.lab.mixture import reference_schedule
from trainers.methods import METHODS


@dataclass(frozen=True)
class Pull:
    """One method's influence.

    Attributes:
        method: Its name in the table.
        shares: (T,) h of each step, noisiest first, summing to 1.
        trained: How many steps it trains on.
    """

    method: str
    shares: tuple[float, ...]
    trained: int

    def thirds(self) -> tuple[float, float, float]:
        """Return the share of the noisy, the middle and the clean third of the steps."""
        noisy, middle, clean = (sum(self.shares[first:last]) for first, last in pairwise(THIRDS))
        return noisy, middle, clean


def pulls(family: str, names: Sequence[str], branches: tuple[int, ...], injected: float) -> list[Pull]:
    """Return the influence of each method.

    Args:
        family: ``flow`` or ``diffusion``.
        names: Rows of the method table that fit the family.
        branches: K of each step that injects noise, for the methods that branch at chosen steps.
        injected: Noise of the stochastic steps.
    """
    return [_pull(family, name, branches, injected) for name in names]


@lru_cache(maxsize=512)
def _pull(family: str, name: str, branches: tuple[int, ...], injected: float) -> Pull:
    method, schedule = METHODS.get(name), reference_schedule(family, STEPS)
    settings = {"rollout_steps": STEPS, "branches": branches, "noise_level": injected, "kl_weight": 1.0}
    config = RunConfig(estimator=name, **(dict(method.defaults) | settings))
    shares = tuple(influence(method, config, schedule))
    return Pull(name, shares, len(trained_steps(method, config, schedule)))
