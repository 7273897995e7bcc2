"""The settings of a run as the form can hold them, and in words what it cannot: prompts in files."""

from __future__ import annotations

import dataclasses

from rsm_app.jobs.own_prompts import own_prompts
from rsm_app.jobs.store import Run
from rsm_app.ui import form
from trainers.config import RunConfig
from trainers.presets import default_config
from trainers.prompts import builtin_sets

_KINDS = {"prompts": "training prompts", "heldout_prompts": "held-out prompts"}


def copied_config(run: Run) -> RunConfig:
    """Return a run's settings with the usual built-in set in place of prompts that the form cannot hold.

    Own training prompts that can be read stay: the form has a box for them, see ``own_prompts``.

    Raises:
        InputError: As ``form.restored_config``.
    """
    config = form.restored_config(run.settings())
    return dataclasses.replace(config, **_usual(run, config))


def not_copied(run: Run) -> list[str]:
    """Say what ``copied_config`` leaves out, one sentence each; errors as there."""
    config = form.restored_config(run.settings())
    return [
        f"The {_KINDS[name]} of this run are in a file that cannot be copied into the form. It has the "
        f"built-in set {usual} instead."
        for name, usual in _usual(run, config).items()
    ]


def _usual(run: Run, config: RunConfig) -> dict[str, str]:
    usual, sets = default_config(config.model, config.estimator, config.reward), builtin_sets()
    lost = []
    if config.prompts not in sets and not own_prompts(run):
        lost.append("prompts")
    if config.heldout_prompts not in sets:
        lost.append("heldout_prompts")
    return {name: getattr(usual, name) for name in lost}
