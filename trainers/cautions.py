"""What a person should know before they start a run that can be started, as sentences by kind. Torch-free.

They become the run's notes (``trainers.notes``); the page and ``--dry-run`` show them beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainers.config import RunConfig
from trainers.long_prompts import find_long, kept
from trainers.models.configured import configured
from trainers.preflight import compared_prompts, estimate, reference
from trainers.presets import default_config
from trainers.prompt_files import PromptRow
from trainers.prompts import load_rows

SMALL_SHARE = 0.25  # of a budget
FEW_STEPS_RATIO = 3
"""How many times the rollout's steps the comparison may take before that is worth a sentence."""


def cautions(config: RunConfig, own: Sequence[PromptRow] | None = None, ask: bool = True) -> dict[str, str]:
    """Return a sentence for everything that is allowed and may surprise.

    Args:
        config: The settings, already checked.
        own: The training prompts when they are not those that ``config.prompts`` names.
        ask: Whether the Hub may be asked for the files of a tokenizer.

    Raises:
        InputError: A prompt file cannot be read.
    """
    sets = {
        "prompts": load_rows(config.prompts) if own is None else own,
        "heldout_prompts": load_rows(config.heldout_prompts),
    }
    long = {name: find_long(config, name, rows, ask) for name, rows in sets.items()}
    used = {name: [row.prompt for row in kept(config, rows, long[name])] for name, rows in sets.items()}
    compared = used["heldout_prompts"][: config.eval_prompts]
    found = {
        **{f"long_{name}": each.sentence(config.long_prompts) for name, each in long.items() if each.rows},
        "overlap": overlap_sentence(trained_on(used["prompts"], compared), len(compared)),
        "steps": _steps_sentence(config),
        "budget": _budget_sentence(config),
    }
    return {kind: text for kind, text in found.items() if text}


def trained_on(training: Sequence[str], compared: Sequence[str]) -> int:
    """Return how many different prompts of a comparison are trained on, spaces and case aside."""
    known = {_key(prompt) for prompt in training}
    return sum(_key(prompt) in known for prompt in dict.fromkeys(compared))


def which(report: Mapping, things: str) -> str:
    """Name what a comparison was drawn for: held-out things, unless some of its prompts are trained on.

    Args:
        report: The report, which may be a stranger's.
        things: ``pictures`` or ``prompts``.
    """
    shared, prompts = report.get("prompts_trained_on"), report.get("prompts")
    if not isinstance(shared, int) or not isinstance(prompts, int) or shared <= 0:
        return f"held-out {things}"
    if shared >= prompts:
        return "prompts that are trained on" if things == "prompts" else f"{things} of training prompts"
    if things == "prompts":
        return f"prompts of which {shared} of {prompts} are trained on"
    return f"{things}, {shared} of whose {prompts} prompts are trained on"


def overlap_sentence(shared: int, compared: int) -> str:
    """Return what is to be said of a comparison on training prompts; empty when none is."""
    if not shared:
        return ""
    which = f"{shared} of the {compared} prompts" if shared < compared else f"All {compared} prompts"
    if compared == 1:
        which = "The one prompt"
    return (
        f"{which} of the comparison {'is' if shared == 1 else 'are'} trained on as well, so the gain is not "
        "one on new prompts. Name other heldout_prompts to measure that."
    )


def _key(prompt: str) -> str:
    return " ".join(prompt.split()).casefold()


def _steps_sentence(config: RunConfig) -> str:
    """Say that a checkpoint which somebody trains in few steps is compared in many."""
    asked = (
        default_config(config.model, config.estimator, config.reward).rollout_steps != config.rollout_steps
    )
    steps = configured(config).call.get("num_inference_steps")
    if not asked or not isinstance(steps, int) or steps < FEW_STEPS_RATIO * config.rollout_steps:
        return ""
    return (
        f"Rollouts take {config.rollout_steps} sampling steps and the comparison {steps}. A checkpoint that "
        f"was made for few steps is to be compared in few: set eval_steps={config.rollout_steps} as well."
    )


def _budget_sentence(config: RunConfig) -> str:
    """Say that the comparison alone takes longer than the budget, by the speed of the reference machine."""
    speed = reference(config)
    if speed is None:
        return ""
    expected = estimate(config, speed)
    if expected.fits:
        return ""
    return too_short(config, expected.comparison_seconds, expected.total_seconds)


def too_short(config: RunConfig, comparison: float, whole: float) -> str:
    """Return the sentence about a budget without room for training beside the comparison.

    Args:
        config: The settings.
        comparison: Seconds of the comparison, both sides.
        whole: Seconds that the run will take.
    """
    if comparison < SMALL_SHARE * config.budget_seconds:  # it is not what takes the time
        return (
            f"The budget of {config.budget_seconds:g} s is too short for one update, which is made all the "
            f"same; the run takes about {whole:.0f} s. Give more budget_seconds."
        )
    prompts = compared_prompts(config)
    images = 2 * prompts * config.eval_samples_per_prompt
    return (
        f"The budget of {config.budget_seconds:g} s has no room for training beside the comparison: its "
        f"{images} images take about {comparison:.0f} s, so the run makes one update and takes about "
        f"{whole:.0f} s. Give more budget_seconds, or fewer eval_prompts than {prompts}."
    )
