"""How large the settings of a run may be where visitors share a machine: batches, images, rank, lookahead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rsm_app.jobs.limits import Limits
from trainers.config import RunConfig
from trainers.models.configured import configured
from trainers.preflight import pictures_per_rollout


@dataclass(frozen=True)
class _Ceiling:
    """One limit on what settings ask for.

    Attributes:
        limit: The field of ``Limits``.
        asked: What a config asks for.
        what: What that is, as the subject of a sentence; "" when it is a single setting.
        settings: The settings that decide it.
    """

    limit: str
    asked: Callable[[RunConfig], float]
    what: str
    settings: tuple[str, ...]

    def problem(self, config: RunConfig, limits: Limits) -> str:
        """Say what is beyond the limit, and what to lower; empty when nothing is."""
        most, asked = getattr(limits, self.limit), self.asked(config)
        if not most or asked <= most:
            return ""
        names = " or ".join(f"'{name}'" for name in self.settings)
        if not self.what:
            return f"{names} may be at most {most:g} here, not {asked:g}."
        return f"{self.what} may be at most {most:g} here, not {asked:g}: lower {names}."


def _setting(limit: str, name: str) -> _Ceiling:
    return _Ceiling(limit, lambda config: getattr(config, name), "", (name,))


_CEILINGS = (
    _setting("batch", "micro_batch"),
    _setting("batch", "eval_batch"),
    _setting("lora_rank", "lora_rank"),
    _setting("lookahead", "lookahead_steps"),
    _setting("replay", "replay_size"),
    _Ceiling(
        "resolution",
        lambda config: configured(config).call.get("height", 0),
        "The side of an image, in pixels,",
        ("resolution",),
    ),
    _Ceiling(
        "rollout_images",
        pictures_per_rollout,
        "The images of a rollout",
        ("prompts_per_update", "group_size", "branches", "roots_per_prompt"),
    ),
    _Ceiling(
        "compared_images",
        lambda config: config.eval_prompts * config.eval_samples_per_prompt,
        "The images of a comparison",
        ("eval_prompts", "eval_samples_per_prompt"),
    ),
)


def ceiling_problems(config: RunConfig, limits: Limits, prompts: int = 0) -> list[str]:
    """Return a sentence for everything that a run may not have as much of as its settings ask for.

    Args:
        config: The settings, whose combination is sound.
        limits: What a run may have.
        prompts: Own training prompts that come along as text.
    """
    found = [problem for ceiling in _CEILINGS if (problem := ceiling.problem(config, limits))]
    return found + prompt_count_problems(prompts, limits)


def prompt_count_problems(count: int, limits: Limits) -> list[str]:
    """Say when somebody brings more prompts than one may; asked before any of them is looked at."""
    if not limits.own_prompts or count <= limits.own_prompts:
        return []
    return [f"One may bring at most {limits.own_prompts:g} prompts here, not {count}."]
