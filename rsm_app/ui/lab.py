"""The laboratory page: every estimator of the value guidance on a problem whose answer is known exactly.

Three figures answer to the choices: where an estimator points, what its errors cost, and where in the
schedule methods learn. ``trainers.lab`` computes; it is imported with the first figure, as it brings torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import gradio as gr

from rsm_app.ui import costly
from rsm_app.ui import lab_text as text
from trainers.custom import CUSTOM
from trainers.errors import InputError
from trainers.lab import choices
from trainers.methods import METHODS

_DRAW = {
    "api_visibility": "private",
    "show_progress": "minimal",
    "trigger_mode": "always_last",
    **costly.kind("lab"),
}
_QUIET = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
_FIRST_METHODS = {
    "flow": ["rsm_zeroth_order_flow", "rsm_first_order_flow", "grpo", "pcpo_flow", "awm"],
    "diffusion": ["rsm_zeroth_order_diffusion", "rsm_first_order_diffusion", "grpo", "pcpo", "awm"],
}


@dataclass
class _Inputs:
    """The components that choose, in the order of the fields of ``trainers.lab.choices.Choice``."""

    family: gr.Radio
    order: gr.Radio
    advantage: gr.Radio
    rollout: gr.Radio
    samples: gr.Radio
    lookahead: gr.Radio
    noise: gr.Slider
    injected: gr.Slider
    beta: gr.Radio
    seed: gr.Number

    def sent(self) -> list:
        """Return the components in order."""
        return list(vars(self).values())


def build(demo: gr.Blocks) -> None:
    """Render the page and wire it."""
    gr.HTML(text.INTRO, padding=False, elem_classes="rsm-plain")
    with gr.Row(elem_id="lab"):
        with gr.Column(scale=2, min_width=300, elem_id="lab-choices"):
            inputs, parts = _build_choices()
            problems = gr.HTML("", elem_id="lab-problems", padding=False, elem_classes="rsm-plain")
        with gr.Column(scale=3, min_width=300, elem_id="lab-field-part"):
            _explain(text.FIELD)
            field = gr.HTML(
                text.waiting("arrows"), elem_id="lab-field", padding=False, elem_classes="rsm-plain"
            )
    with gr.Column(elem_id="lab-errors-part"):
        _explain(text.ERRORS)
        errors = gr.HTML(
            text.waiting("errors"), elem_id="lab-errors", padding=False, elem_classes="rsm-plain"
        )
    with gr.Column(elem_id="lab-pulls-part"):
        _explain(text.PULLS)
        methods, branching, written, pull_problems, drawn = _build_pulls()
    pulls_in = [inputs.family, inputs.injected, methods, branching, written]
    inputs.order.input(_show_parts, inputs.order, parts, **_QUIET)
    branching.input(lambda kind: gr.update(visible=kind == CUSTOM), branching, written, **_QUIET)
    changed = inputs.family.input(_change_family, inputs.family, [inputs.injected, methods], **_QUIET)
    rest = [component.input for component in inputs.sent()[1:]]
    for trigger in (*rest, changed.then, demo.load):
        trigger(_draw_field, inputs.sent(), [problems, field], **_DRAW)
        trigger(_draw_errors, inputs.sent(), errors, **_DRAW)
    # Change where input is not enough: a new textbox does not send it for the first thing typed, and a
    # dropdown that is emptied by its button sends none.
    for trigger in (
        methods.change, branching.input, written.change, inputs.injected.input, changed.then, demo.load,
    ):  # fmt: skip
        trigger(_draw_pulls, pulls_in, [pull_problems, drawn], **_DRAW)


def _explain(markdown: str) -> None:
    gr.Markdown(markdown, latex_delimiters=text.DELIMITERS, elem_classes="rsm-explain")


def _build_choices() -> tuple[_Inputs, list[gr.Column]]:
    """Render the choices of the estimator; also return the parts that only one of the orders needs."""
    first = choices.Choice()
    family = _radio("Model family", choices.FAMILIES, first.family, "family", text.FAMILY_INFO)
    order = _radio("What the estimator reads", choices.ORDERS, first.order, "order")
    with gr.Column(elem_id="lab-zeroth") as zeroth:
        advantage = _radio("Advantage: how a reward becomes a weight", choices.ADVANTAGES, first.advantage,
                           "advantage", text.ADVANTAGE_INFO)  # fmt: skip
        rollout = _radio("Rollout after the first noisy step", choices.ROLLOUTS, first.rollout, "rollout")
        samples = _radio("Samples N per arrow", _numbers(choices.SAMPLES), first.samples, "samples")
    with gr.Column(visible=False, elem_id="lab-first") as gradient:
        lookahead = _radio("Lookahead: network evaluations up to the clean estimate",
                           _numbers(choices.LOOKAHEADS), first.lookahead, "lookahead")  # fmt: skip
    noise = _slider(
        "Noise level of the states", choices.NOISE_RANGE, first.noise, "noise", 0.01, text.NOISE_INFO
    )
    injected = _slider(
        "Noise injected per step", choices.INJECTED_RANGE, first.injected, "injected", 0.1, text.INJECTED_INFO
    )
    beta = _radio("β: the price of leaving the base model", _numbers(choices.BETAS), first.beta, "beta")
    seed = gr.Number(first.seed, label="Seed of the draws", info="Another seed draws other samples.",
                     elem_id="lab-seed")  # fmt: skip
    inputs = _Inputs(
        family, order, advantage, rollout, samples, lookahead, noise, injected, beta, seed
    )  # fmt: skip
    return inputs, [zeroth, gradient]


def _radio(label: str, options: dict, value: object, name: str, info: str | None = None) -> gr.Radio:
    pairs = [(title, key) for key, title in options.items()]
    radio = gr.Radio(pairs, value=value, label=label, info=info, elem_id=f"lab-{name}")
    radio.preprocess = _as_sent
    return radio


def _slider(
    label: str, span: tuple[float, float], value: float, name: str, step: float, info: str
) -> gr.Slider:
    slider = gr.Slider(
        *span, value=value, step=step, label=label, info=info, elem_id=f"lab-{name}", buttons=[]
    )
    slider.preprocess = _as_sent
    return slider


def _as_sent(payload: object) -> object:
    """Pass a value on: ``trainers.lab.choices`` checks all of them together and answers in sentences."""
    return payload


def _numbers(values: tuple) -> dict:
    return {value: f"{value:g}" for value in values}


def _build_pulls() -> tuple:
    """Render the choice of methods and branching, and the place of their figure."""
    family = choices.Choice().family
    with gr.Row():
        methods = gr.Dropdown(
            _method_choices(family), value=_FIRST_METHODS[family], multiselect=True, label="Methods",
            info="Those that train the model family chosen above.", elem_id="lab-methods", min_width=280,
        )  # fmt: skip
        methods.preprocess = _as_sent
        with gr.Column(min_width=280):
            branching = _radio(
                "Branching: the steps at which branches leave", choices.BRANCHINGS, "noisy", "branching",
                text.BRANCHING_INFO,
            )  # fmt: skip
            written = gr.Textbox(
                "8, 0, 8", label="Branches K at each step, the noisiest first", max_lines=1, visible=False,
                elem_id="lab-written",
            )  # fmt: skip
    problems = gr.HTML("", elem_id="lab-pull-problems", padding=False, elem_classes="rsm-plain")
    drawn = gr.HTML(text.waiting("shares"), elem_id="lab-pulls", padding=False, elem_classes="rsm-plain")
    return methods, branching, written, problems, drawn


def _method_choices(family: str) -> list[tuple[str, str]]:
    return [(METHODS.get(name).title, name) for name in choices.methods_of(family)]


def _show_parts(order: str) -> list[dict]:
    return [gr.update(visible=order != "first"), gr.update(visible=order == "first")]


def _change_family(family: str) -> list:
    if str(family) not in choices.FAMILIES:
        return [gr.skip(), gr.skip()]
    methods = gr.update(choices=_method_choices(family), value=_FIRST_METHODS[family])
    return [choices.EXACT_INJECTED[family], methods]


@lru_cache(maxsize=1)
def _engine():
    """Import what computes and draws."""
    import torch

    from rsm_app.ui import lab_figures
    from trainers.lab import field, pulls

    torch.set_num_threads(1)  # figures are small, and a run may be training beside them
    return field, pulls, lab_figures


def _choice(values: tuple) -> choices.Choice:
    names = choices.Choice.__dataclass_fields__
    return choices.read_choice(dict(zip(names, values, strict=True)))


def _draw_field(*values: object) -> tuple:
    """Return the problems of the choices, and the arrows unless there are some."""
    try:
        choice = _choice(values)
    except InputError as error:
        return text.problems(error.problems), gr.skip()
    field, _, figures = _engine()
    found = field.estimate_field(choice)
    caption = text.field_caption(found, figures.shortened(found), figures.LONGEST)
    return "", text.figure(figures.field_svg(found, caption), text.FIELD_KEY, caption)


def _draw_errors(*values: object):
    """Return the errors of every estimator; nothing new while the choices have problems."""
    try:
        choice = _choice(values)
    except InputError:
        return gr.skip()
    field, _, figures = _engine()
    qualities, chosen = field.errors(choice), field.estimator_name(choice)
    caption = text.errors_caption(qualities, chosen, choice.samples)
    svg = figures.errors_svg(qualities, figures.line_name(chosen), caption)
    shown = text.figure(svg, text.ERRORS_KEY, caption)
    return f'<div class="rsm-pairwise">{shown}{text.errors_table(qualities, chosen, choice.samples)}</div>'


def _draw_pulls(
    family: object, injected: object, methods: object, branching: object, written: object
) -> tuple:
    """Return the problems of the choices, and the influence of the methods unless there are some."""
    try:
        choice = choices.read_choice({"family": family, "injected": injected})
        names = choices.check_methods(choice.family, methods)
        branches = choices.branches_of(branching, written or "")
    except InputError as error:
        return text.problems(error.problems), gr.skip()
    _, pulls, figures = _engine()
    found = pulls.pulls(choice.family, names, branches, choice.injected)
    svg = figures.pulls_svg(found, text.STROKES, text.pulls_alt(found))
    shown = text.figure(svg, "", text.PULLS_CAPTION)
    return "", f'<div class="rsm-pairwise">{shown}{text.shares_table(found)}</div>'
