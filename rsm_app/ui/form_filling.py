"""What fills the form of the train page: a run's settings, what its tab kept, or the newcomer's settings."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from rsm_app.jobs.own_prompts import own_prompts
from rsm_app.jobs.store import Run
from rsm_app.ui import copying, fields, form, kept_form, tuned
from trainers.errors import InputError
from trainers.prompts import builtin_sets
from trainers.rewards import REWARDS

_COMPARED = ("model", "reward", "estimator", "prompt_source", "prompt_set", "budget", "seed")
_FILLED = 14  # components beside the advanced inputs


class FormFiller:
    """Makes updates of the form's components.

    In this order: model, reward, source of the prompts, pasted prompts, seed, mixture, estimator, whether
    every one is listed, notes, spread, what is followed, prompt set, budget, seconds, the advanced inputs.
    """

    def __init__(self, shown: Callable[..., list]):
        """Fill with what the page's ``shown`` returns for three choices."""
        self._shown = shown

    def nothing(self) -> list:
        """Leave everything as it is."""
        return [gr.skip()] * (_FILLED + len(fields.ADVANCED))

    def of_run(self, run: Run | None) -> list | None:
        """Return the form as it was for a run; None for none, and for settings that it cannot hold."""
        try:
            config = copying.copied_config(run) if run else None
        except InputError:
            return None
        if config is None:
            return None
        listed = config.reward in REWARDS and not form.unavailable(config.reward)
        own = config.prompts not in builtin_sets()
        _, seconds, *values = tuned.tuned_of(config)
        reward = config.reward if listed else form.CUSTOM
        shown = self._shown(config.model, reward, config.reward, config.estimator)
        mixture = gr.update(value="" if listed else config.reward, visible=not listed)
        head = shown[5].settings[0] if own else config.prompts
        return [
            *(config.model, reward, form.PASTE if own else form.BUILTIN),
            *(own_prompts(run) if own else gr.skip(), config.seed, mixture, *shown[1:6]),
            *(head, *tuned.shown_budget(seconds), *values),
        ]

    def of_tab(self, kept: object, asked: str) -> list | None:
        """Return the form as its tab kept it; None where that says nothing new, or a link goes before it.

        Args:
            kept: What the browser sent, see ``kept_form``.
            asked: The run that the page's address names; empty for none.
        """
        found = kept_form.read(kept)
        if found is None or not found.goes_before(asked) or _same(found.form, newcomers_form()):
            return None
        return self._of_form(found.form)

    def of_newcomer(self) -> list:
        """Return the form as every fresh page has it."""
        return self._of_form(newcomers_form())

    def _of_form(self, held: form.Form) -> list:
        shown = self._shown(held.model, held.reward, held.mixture, held.estimator)
        mixture = gr.update(value=held.mixture or "", visible=held.reward == form.CUSTOM)
        seconds = gr.update(value=held.custom_seconds, visible=held.budget == form.CUSTOM)
        return [
            *(held.model, held.reward, held.prompt_source, held.pasted or "", held.seed, mixture),
            *(*shown[1:6], held.prompt_set, held.budget, seconds, *held.advanced),
        ]


def newcomers_form() -> form.Form:
    """Return what a fresh page's form holds."""
    config = form.newcomer_config()
    return form.Form(
        model=config.model,
        reward=config.reward,
        mixture="",
        estimator=config.estimator,
        prompt_source=form.BUILTIN,
        prompt_set=config.prompts,
        pasted="",
        upload=None,
        budget=str(round(config.budget_seconds)),
        custom_seconds=form.USUAL_CUSTOM_SECONDS,
        seed=config.seed,
        advanced=tuple(fields.values_of(config)),
    )


def _same(held: form.Form, usual: form.Form) -> bool:
    alike = all(getattr(held, name) == getattr(usual, name) for name in _COMPARED)
    return alike and not (held.pasted or "").strip() and list(held.advanced) == list(usual.advanced)
