"""The components of the runs page, in their empty state."""

from __future__ import annotations

import dataclasses

import gradio as gr

from rsm_app.ui import history, run_table

MOVING_SECONDS, IDLE_SECONDS = 2.0, 5.0
PIN, UNPIN = "Pin", "Unpin"
SHARE, UNSHARE = "Share", "Stop sharing"


@dataclasses.dataclass
class Parts:
    """The components of the page."""

    search: gr.Textbox
    group: gr.Radio
    summary: gr.HTML
    table: gr.HTML
    pager: gr.Row
    newer: gr.Button
    pager_text: gr.HTML
    older: gr.Button
    notice: gr.HTML
    bar: gr.Column
    facts: gr.HTML
    open: gr.Button
    stop: gr.Button
    resume: gr.Button
    retry: gr.Button
    pin: gr.Button
    share: gr.Button
    publish: gr.Button
    export: gr.Button
    save: gr.DownloadButton
    delete: gr.Button
    close: gr.Button
    confirm: gr.Column
    question: gr.HTML
    really: gr.Button
    keep: gr.Button
    view: gr.BrowserState
    timer: gr.Timer
    doomed: gr.State
    seen: gr.State
    due: gr.State

    def all(self) -> list:
        """Return every component."""
        return [getattr(self, info.name) for info in dataclasses.fields(self)]


def build_parts() -> Parts:
    """Render the page."""
    gr.HTML('<h2 class="rsm-title">Runs</h2>', padding=False, elem_classes="rsm-plain")
    return Parts(
        **_build_list(),
        **_build_bar(),
        view=gr.BrowserState({}, storage_key="rsm-studio-runs", secret="rsm-studio"),
        timer=gr.Timer(IDLE_SECONDS),
        doomed=gr.State(""),
        seen=gr.State({}),
        due=gr.State(0),
    )


def _build_list() -> dict:
    """Render the search, the list and the buttons that turn its pages."""
    parts: dict = {}
    with gr.Row(elem_id="runs-filters"):
        parts["search"] = gr.Textbox(
            label="Search", info="Words of a model, reward, method, state, owner or run id.",
            elem_id="runs-search", max_lines=1, scale=2, min_width=260,
        )  # fmt: skip
        groups = [(title, key) for key, (title, _) in history.GROUPS.items()]
        parts["group"] = gr.Radio(
            groups, value=history.ALL, label="State", elem_id="runs-state", scale=3, min_width=260
        )
    parts["summary"] = gr.HTML(elem_id="runs-summary", padding=False)
    parts["table"] = gr.HTML(
        run_table.WAITING, elem_id="runs-table", padding=False, js_on_load=run_table.CHOOSE
    )
    with gr.Row(visible=False, elem_id="runs-pager") as parts["pager"]:
        parts["newer"] = _button("Newer", "runs-newer")
        parts["pager_text"] = gr.HTML(padding=False, elem_id="runs-shown")
        parts["older"] = _button("Older", "runs-older")
    return parts


def _build_bar() -> dict:
    """Render the foot of the page: notices, the chosen run's buttons, and the question before deleting."""
    parts: dict = {}
    with gr.Column(elem_id="runs-foot"):
        parts["notice"] = gr.HTML(elem_id="runs-notice", padding=False)
        with gr.Column(visible=False, elem_id="runs-bar") as parts["bar"]:
            parts["facts"] = gr.HTML(elem_id="runs-facts", padding=False)
            with gr.Row(elem_id="runs-buttons"):
                parts["open"] = _button("Open", "runs-open", variant="primary")
                parts["stop"] = _button("Stop", "runs-stop", variant="stop")
                parts["resume"] = _button("Resume", "runs-resume")
                parts["retry"] = _button("Try again with these settings", "runs-retry")
                parts["pin"] = _button(PIN, "runs-pin")
                parts["share"] = _button(SHARE, "runs-share")
                parts["publish"] = _button("Publish", "runs-publish")
                parts["export"] = _button("Export as zip", "runs-export")
                parts["save"] = gr.DownloadButton(
                    "Save", elem_id="runs-save", size="sm", variant="primary", visible=False,
                    min_width=80, scale=0,
                )  # fmt: skip
                parts["delete"] = _button("Delete", "runs-delete", variant="stop")
                parts["close"] = _button("Close", "runs-close")
            with gr.Column(visible=False, elem_id="runs-confirm") as parts["confirm"]:
                parts["question"] = gr.HTML(elem_id="runs-question", padding=False)
                with gr.Row():
                    parts["really"] = _button("Delete for good", "runs-really", variant="stop")
                    parts["keep"] = _button("Keep it", "runs-keep")
    return parts


def _button(text: str, elem_id: str, **options) -> gr.Button:
    return gr.Button(text, elem_id=elem_id, size="sm", min_width=80, scale=0, **options)
