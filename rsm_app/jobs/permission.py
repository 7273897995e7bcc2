"""What the settings of a run may name in the app, where others than its owner start runs.

No file of this machine, but for the run's own prompts; no endpoint and no code that the app's owner did not
choose. Asked whenever a run is queued, also again: what a folder says may have come from a repository. A run
that was made in a shell, by somebody who can read the machine's files anyway, may name files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsm_app.jobs.ceilings import ceiling_problems
from rsm_app.jobs.devices import usable
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.memory import memory_problems
from rsm_app.jobs.store import Run
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.models import MODELS
from trainers.preflight import obstacles
from trainers.presets import combination_problems, reward_problems
from trainers.prompts import builtin_sets
from trainers.rewards.remote import endpoint_problems


def check_settings(
    config: RunConfig,
    devices: Sequence[str],
    limits: Limits,
    run: Run | None = None,
    own_prompts: str | None = None,
) -> None:
    """Refuse settings that a run may not have here, or that cannot work now.

    Args:
        config: The settings, in their ranges.
        devices: What runs may use.
        limits: How much a run may take.
        run: The run that has them already; None for a new one.
        own_prompts: Training prompts that come along as text, one a line; None when there are none.

    Raises:
        InputError: With a sentence for each.
    """
    shell = run is not None and run.made_in_a_shell()
    found = [] if shell else _foreign_files(config, run, own_prompts is not None)
    found += endpoint_problems(config) + reward_problems(config)
    found = found or combination_problems(config)
    found = found or ([] if shell else size_problems(config, devices, limits, own_prompts))
    found = found or obstacles(config)
    if not usable(config.device, devices):
        found.append(
            f"'device' asks for {config.device}, but this machine offers {', '.join(devices)}; use auto."
        )
    if found:
        raise InputError(*dict.fromkeys(found))


def size_problems(
    config: RunConfig, devices: Sequence[str], limits: Limits, own_prompts: str | None = None
) -> list[str]:
    """Say what of a sound combination of settings is larger than a run may have, or than the machine."""
    prompts = len((own_prompts or "").splitlines())
    return ceiling_problems(config, limits, prompts) or memory_problems(config, devices, limits, prompts)


def _foreign_files(config: RunConfig, run: Run | None, own_prompts: bool) -> list[str]:
    found = [] if config.model in MODELS else [MODELS.unknown(config.model)]
    for name in ("prompts", "heldout_prompts"):
        value = getattr(config, name)
        own = own_prompts and name == "prompts"
        if not own and value not in builtin_sets() and not _within(value, run):
            found.append(f"'{name}' must be a built-in set: {', '.join(builtin_sets())}.")
    return found


def _within(path: str, run: Run | None) -> bool:
    """Whether a path leads into the run's own folder."""
    return run is not None and Path(path).resolve().is_relative_to(run.path.resolve())
