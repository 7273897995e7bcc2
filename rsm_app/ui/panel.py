"""The run panel's components, in their empty state; ``watch`` brings them up to date."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import gradio as gr

from rsm_app.ui import curves, live, pictures, theme

IDLE_SECONDS = 5.0
MORE_SECONDS = 120
TITLES = {
    "reward_mean": "Training reward",
    "kl": "KL to the base model",
    "grad_norm": "Gradient norm",
    "clip_fraction": "Clip fraction",
    curves.HELDOUT: "Held-out reward (few prompts)",
}
OTHERS_TITLE = "Other rewards: change"
_CLIP_COLOUR = "#3f7fbf"


@dataclass
class Panel:
    """The components of the run panel.

    Attributes:
        seen: What tells the head that a tab was shown last.
        ticket: Changes when any part of ``watch.PARTS`` is to be filled again.
        due: A stamp for every part; when one changes, its part is filled.
    """

    status: gr.HTML
    symptoms: gr.HTML
    stop: gr.Button
    resume: gr.Button
    retry: gr.Button
    more: gr.Button
    duplicate: gr.Button
    publish: gr.Button
    outcome: gr.Column
    result: gr.HTML
    slider: gr.ImageSlider
    pair_caption: gr.HTML
    curve_wait: gr.HTML
    live: gr.Column
    curve: gr.LinePlot
    kl: gr.LinePlot
    gradient: gr.LinePlot
    clip: gr.LinePlot
    heldout: gr.Column
    heldout_curve: gr.LinePlot
    others: gr.Column
    others_curves: gr.LinePlot
    others_legend: gr.HTML
    strip_column: gr.Column
    strip: gr.Gallery
    strip_prompts: gr.HTML
    baseline: gr.Column
    baseline_gallery: gr.Gallery
    pairs: gr.Column
    order: gr.Dropdown
    gallery: gr.Gallery
    details: gr.Column
    command: gr.Textbox
    adapter: gr.Button
    report: gr.Button
    save: gr.DownloadButton
    log_box: gr.Accordion
    log: gr.Textbox
    timer: gr.Timer
    seen: gr.State
    ticket: gr.Textbox
    due: dict[str, gr.State]


def build_panel(empty_line: str, parts: Iterable[str]) -> Panel:
    """Render the run panel in its empty state.

    Args:
        empty_line: What Start would do.
        parts: Names of the parts that are filled on their own.
    """
    status = gr.HTML(live.empty_html(empty_line, waiting=True), elem_id="run-status", padding=False)
    symptoms = gr.HTML("", elem_id="symptoms", padding=False, visible=False)
    return Panel(
        status, symptoms, *_buttons(), *_outcome(), *_curves(), *_others(), *_strip(), *_baseline(),
        *_pairs(), *_details(), *_log(), gr.Timer(IDLE_SECONDS), gr.State(""),
        gr.Textbox("", label="Version of what is shown", visible="hidden"),
        {name: gr.State([]) for name in parts},
    )  # fmt: skip


def _buttons() -> tuple:
    with gr.Row(elem_id="run-buttons"):
        return (
            gr.Button("Stop", elem_id="stop", variant="stop", visible=False, size="md"),
            gr.Button("Resume", elem_id="resume", variant="primary", visible=False, size="md"),
            gr.Button("Retry", elem_id="retry", variant="primary", visible=False, size="md"),
            gr.Button(f"Train {MORE_SECONDS // 60} minutes more", elem_id="more", visible=False, size="md"),
            gr.Button("Duplicate settings", elem_id="duplicate", visible=False, size="md"),
            gr.Button("Publish", elem_id="publish", visible=False, size="md"),
        )


def _outcome() -> tuple:
    with gr.Column(visible=False, elem_id="outcome") as outcome:
        html = gr.HTML(elem_id="result", padding=False)
        gr.HTML(
            '<h3 class="rsm-sub">One pair, same prompt and seed: drag to compare</h3>',
            padding=False,
            elem_classes="rsm-plain",
        )
        slider = gr.ImageSlider(
            label="Before (left) and after (right)", elem_id="slider", format="png", interactive=False,
            buttons=["fullscreen"], max_height=420,
        )  # fmt: skip
        caption = gr.HTML(elem_id="pair-caption", padding=False)
    return outcome, html, slider, caption


def _curves() -> tuple:
    wait = gr.HTML(live.CURVE_WAIT, visible=False, elem_id="curve-wait", padding=False)
    with gr.Column(visible=False, elem_id="live") as column:
        reward = _plot("reward_mean", "Reward", "reward-plot", theme.AFTER, 240)
        with gr.Row():
            kl = _plot("kl", "KL", "kl-plot", theme.THIRD, 180)
            gradient = _plot("grad_norm", "Norm", "gradient-plot", theme.BEFORE, 180)
        with gr.Row():
            clip = _plot("clip_fraction", "Share", "clip-plot", _CLIP_COLOUR, 180)
            with gr.Column(visible=False, elem_id="heldout", min_width=160) as heldout:
                heldout_curve = _plot(curves.HELDOUT, "Reward", "heldout-plot", theme.AFTER, 180)
    return wait, column, reward, kl, gradient, clip, heldout, heldout_curve


def _others() -> tuple:
    with gr.Column(visible=False, elem_id="others") as column:
        others = gr.LinePlot(
            curves.plot([], {"value": OTHERS_TITLE}),
            x="step",
            y="value",
            color="series",
            colors_in_legend=[],  # the legend below wraps, the plot's own is cut off
            title=OTHERS_TITLE,
            x_title="Update",
            y_title="Change",
            height=240,
            elem_id="others-plot",
            buttons=[],
        )
        legend = gr.HTML(elem_id="others-legend", padding=False)
    return column, others, legend


def _strip() -> tuple:
    with gr.Column(visible=False, elem_id="strip-column") as column:
        strip = gr.Gallery(
            label="The same held-out prompts and seeds, drawn again during training", elem_id="strip",
            columns=1, object_fit="contain", height="auto", allow_preview=False, format="png", buttons=[],
            interactive=False,
        )  # fmt: skip
        prompts = gr.HTML(elem_id="strip-prompts", padding=False)
    return column, strip, prompts


def _baseline() -> tuple:
    with gr.Column(visible=False, elem_id="baseline") as column:
        gallery = gr.Gallery(
            label="Before training: held-out pictures of the untouched model, with their rewards",
            elem_id="before-gallery", columns=6, object_fit="contain", height="auto", allow_preview=False,
            format="png", buttons=[], interactive=False,
        )  # fmt: skip
    return column, gallery


def _pairs() -> tuple:
    with gr.Column(visible=False, elem_id="pairs-column") as column:
        order = gr.Dropdown(
            [(title, key) for key, title in pictures.ORDERS.items()],
            value="gain",
            label="Sort pairs",
            elem_id="order",
            filterable=False,
        )
        gallery = gr.Gallery(
            label="Pairs: before left, after right; choose one for the slider", elem_id="pairs",
            columns=3, object_fit="contain", height="auto", allow_preview=False, format="png", buttons=[],
            interactive=False,
        )  # fmt: skip
    return column, order, gallery


def _details() -> tuple:
    with gr.Column(visible=False, elem_id="details") as column:
        command = gr.Textbox(
            label="Repeat this run in a shell", elem_id="command", lines=2, max_lines=6, interactive=False,
            buttons=["copy"],
        )  # fmt: skip
        with gr.Row():
            adapter = gr.Button("Adapter (zip)", elem_id="adapter", visible=False)
            report = gr.Button("Report (JSON)", elem_id="report", visible=False)
            save = gr.DownloadButton("Save", elem_id="save", variant="primary", visible=False)
    return column, command, adapter, report, save


def _log() -> tuple:
    with gr.Accordion("Log", open=False, visible=False, elem_id="log-box") as box:
        log = gr.Textbox(
            label="The last lines of the run's log", elem_id="log", lines=12, max_lines=40, interactive=False,
            buttons=["copy"],
        )  # fmt: skip
    return box, log


def _plot(key: str, unit: str, elem_id: str, colour: str, height: int) -> gr.LinePlot:
    title = TITLES[key]
    return gr.LinePlot(
        curves.plot([], {"value": title}),
        x="step",
        y="value",
        color="series",
        color_map={title: colour},
        colors_in_legend=[],
        title=title,
        x_title="Update",
        y_title=unit,
        height=height,
        elem_id=elem_id,
        buttons=[],
    )
