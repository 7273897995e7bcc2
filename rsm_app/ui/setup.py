"""The form of the train page: its components with the newcomer's settings in them; ``form`` reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from rsm_app.jobs.fitting import trainable
from rsm_app.ui import field_problems, fields, form, tuned
from trainers.config import RunConfig
from trainers.prompts import builtin_sets
from trainers.rewards import REWARDS

CHECK_LABEL = "Check reward spread"


@dataclass
class Inputs:
    """The form's components.

    Attributes:
        told: Place (``field_problems.PLACES``) → the line that tells what is wrong there.
        sections: Group → accordion of its advanced settings; the empty name is the one around them all.
        followed: The ``tuned.Followed`` of what the form shows.
        proposed: What the settings of other choices would put into ``following``, see ``tuned.proposal``.
        kept: Says that the form holds what it did before the page was loaded anew.
        forget: The way back to the newcomer's settings.
    """

    model: gr.Radio
    reward: gr.Radio
    mixture: gr.Textbox
    estimator: gr.Radio
    every: gr.Checkbox
    notes: gr.HTML
    prompt_source: gr.Radio
    prompt_set: gr.Dropdown
    pasted: gr.Textbox
    upload: gr.File
    budget: gr.Radio
    custom_seconds: gr.Number
    seed: gr.Number
    advanced: list
    followed: gr.State
    proposed: gr.Textbox
    preflight: gr.HTML
    spread: gr.Button
    spread_result: gr.HTML
    start: gr.Button
    problems: gr.HTML
    told: dict[str, gr.HTML]
    sections: dict[str, gr.Accordion]
    kept: gr.Row
    forget: gr.Button

    def sent(self) -> list:
        """Return the inputs in the order of ``form.Form``; the advanced ones come last."""
        return [
            self.model, self.reward, self.mixture, self.estimator, self.prompt_source, self.prompt_set,
            self.pasted, self.upload, self.budget, self.custom_seconds, self.seed, *self.advanced,
        ]  # fmt: skip

    def following(self) -> list:
        """Return the inputs that follow the choices, in the order of ``tuned.proposal``."""
        return [self.prompt_set, self.budget, self.custom_seconds, *self.advanced]


def build_form() -> Inputs:
    """Render the form with the newcomer's settings."""
    config = form.newcomer_config()
    told: dict[str, gr.HTML] = {}

    def line(place: str) -> None:
        told[place] = field_problems.line(place)

    kept = _build_kept()
    choices = _build_choices(config, line)
    prompts = _build_prompts(config)
    line(field_problems.PROMPTS)
    budget = gr.Radio(
        tuned.budget_options(), value=str(round(config.budget_seconds)), label="5 · Time budget",
        info="For the whole run, both comparisons included.", elem_id="budget",
    )  # fmt: skip
    custom = gr.Number(
        label="Seconds", elem_id="custom-seconds", visible=False, value=form.USUAL_CUSTOM_SECONDS
    )
    line(field_problems.BUDGET)
    seed = gr.Number(label="Seed", info="The same seed repeats the run.", value=config.seed, elem_id="seed")
    line(field_problems.SEED)
    with gr.Accordion("Advanced settings", open=False, elem_id="advanced") as whole:
        gr.HTML(
            '<p class="rsm-facts">Tuned for the choices above; other choices set them anew.</p>',
            padding=False,
            elem_classes="rsm-plain",
        )
        advanced, sections = fields.build_fields(config, line)
    start_with = tuned.Followed((config.model, config.reward, False), tuned.tuned_of(config))
    followed = gr.State(start_with), gr.Textbox("", label="Proposed settings", visible="hidden")
    preflight = _build_preflight()
    with gr.Column(elem_id="start-bar"):
        problems = gr.HTML("", elem_id="problems", padding=False)
        start = gr.Button("Start", variant="primary", size="lg", elem_id="start")
    return Inputs(
        *choices, *prompts, budget, custom, seed, advanced, *followed, *preflight, start, problems, told,
        {"": whole, **sections}, *kept,
    )  # fmt: skip


def _build_kept() -> tuple[gr.Row, gr.Button]:
    """Render the line that says that the form was kept, with the way back; hidden until it was."""
    with gr.Row(visible=False, elem_id="kept") as row:
        gr.HTML(
            '<p class="rsm-facts" role="status">Your choices from before this page was loaded again are back.'
            "</p>",
            padding=False,
            elem_classes="rsm-plain",
        )
        forget = gr.Button("Back to the defaults", size="sm", elem_id="forget", scale=0, min_width=160)
    return row, forget


def _build_choices(config: RunConfig, line: Callable[[str], None]) -> tuple:
    """Render model, reward, custom mixture, estimator and the notes on what does not fit."""
    fitting = form.fit(config.model, config.reward, config.estimator)
    model = gr.Radio(
        form.options(trainable()),
        value=config.model,
        label="1 · Base model",
        elem_id="model",
        elem_classes="rsm-cards",
    )
    gr.HTML(form.models_ruled_out(), elem_id="model-notes", padding=False)
    reward = gr.Radio(
        form.reward_options(),
        value=config.reward,
        label="2 · Reward: what counts as better",
        elem_id="reward",
        elem_classes="rsm-cards",
    )
    ruled_out = form.rewards_ruled_out()
    gr.HTML(ruled_out, elem_id="reward-notes", padding=False, visible=bool(ruled_out))
    mixture = gr.Textbox(
        label="Custom mixture", info=f"Names with weights. Names: {', '.join(REWARDS.names())}.",
        placeholder="shapes:1,tiny_clip:0.2", elem_id="mixture", visible=False, max_lines=1,
    )  # fmt: skip
    line(field_problems.MIXTURE)
    estimator = gr.Radio(
        fitting.choices, value=fitting.estimator, label="3 · Estimator: how it learns", elem_id="estimator",
        elem_classes="rsm-cards",
    )  # fmt: skip
    # Its choices change, and a tab from before a restart may send one that is not among the first ones: pass
    # it on, the form checks every value.
    estimator.preprocess = lambda payload: payload
    every = gr.Checkbox(
        label="Show every estimator that fits", info=form.hidden_line(fitting.hidden), value=False,
        elem_id="every",
    )  # fmt: skip
    notes = gr.HTML(fitting.notes, elem_id="estimator-notes", padding=False)
    return model, reward, mixture, estimator, every, notes


def _build_preflight() -> tuple:
    """Render what the run will take, and the check of the reward."""
    figures = gr.HTML("", elem_id="preflight", padding=False)
    spread = gr.Button(CHECK_LABEL, elem_id="spread", size="md")
    found = gr.HTML("", elem_id="spread-result", padding=False, visible=False)
    return figures, spread, found


def _build_prompts(config: RunConfig) -> tuple:
    """Render the source of the prompts and one input for each source."""
    source = gr.Radio(
        form.PROMPT_SOURCES, value=form.BUILTIN, label="4 · Training prompts", elem_id="prompt-source"
    )
    prompt_set = gr.Dropdown(
        list(builtin_sets()),
        value=config.prompts,
        label="Built-in set",
        elem_id="prompt-set",
        filterable=False,
    )
    pasted = gr.Textbox(
        label="Prompts, one a line", lines=4, max_lines=12, elem_id="pasted", visible=False,
        placeholder="a red circle left of a blue square\nthree green triangles",
    )  # fmt: skip
    upload = gr.File(
        label="Text with one prompt a line, CSV, TSV, JSON or JSON lines",
        file_types=["text", *form.UPLOADS],
        elem_id="upload",
        visible=False,
        height=120,
    )
    upload.preprocess = _path_of  # Gradio's own leaves an empty file behind at every look at the form
    return source, prompt_set, pasted, upload


def _path_of(payload: object) -> str | None:
    """Return where an upload is; Gradio has seen to it that it is one."""
    return getattr(payload, "path", None)
