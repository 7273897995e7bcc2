"""The components of the publish page, in their empty state."""

from __future__ import annotations

import dataclasses

import gradio as gr

from rsm_app.ui.hub_access import can_sign_in

IDLE_SECONDS, MOVING_SECONDS = 5.0, 1.0
PUBLIC, PRIVATE = "public", "private"
PUBLISH = "Publish"
EMPTY = (
    '<section class="rsm-empty" aria-label="Nothing to publish"><h2>Nothing to publish yet</h2>'
    "<p>Runs of yours appear here when they have drawn their pictures before and after. Start one on the "
    "Train page; with the choices as they come it is done in about 90 seconds. Or bring back a published "
    "LoRA below.</p></section>"
)
_INTRO = (
    '<h2 class="rsm-title">Publish</h2><p class="rsm-facts">Share a finished run on the Hugging Face Hub: a '
    "LoRA that two lines of diffusers load, with a model card that shows what changed and what did not.</p>"
)
_LOADING = '<p class="rsm-curve-wait rsm-low">Gathering the card and the files.</p>'
# A token is no password of this site: nothing is to be remembered for it.
_NOT_KEPT = gr.InputHTMLAttributes(autocomplete="off", spellcheck=False, autocapitalize="off")


@dataclasses.dataclass
class Parts:
    """The components of the page.

    Attributes:
        owner: The account that was found at the Hub and its repositories, for suggestions; never a token.
        checked: What was looked at: run, repository, for a new one whether it is made private, and what the
            push would do, as a stamp.
        seen: What tells the push's state that a tab was shown last.
        due: A stamp of the push; when it changes, the buttons follow.
    """

    told: gr.HTML
    who: gr.HTML
    token: gr.Textbox
    page: gr.Column
    run: gr.Dropdown
    repo: gr.Textbox
    visibility: gr.Radio
    problems: gr.HTML
    check: gr.Button
    publish: gr.Button
    cancel: gr.Button
    retry: gr.Button
    target: gr.HTML
    status: gr.HTML
    card: gr.HTML
    files: gr.HTML
    source: gr.Textbox
    bring: gr.Button
    brought: gr.HTML
    timer: gr.Timer
    list_timer: gr.Timer
    listed: gr.State
    offered: gr.State
    owner: gr.State
    checked: gr.State
    seen: gr.State
    due: gr.State


def build_parts() -> Parts:
    """Render the page."""
    _html(_INTRO, "publish-intro")
    return Parts(
        told=_html("", "publish-told"),
        **_build_account(),
        **_build_publication(),
        **_build_import(),
        timer=gr.Timer(IDLE_SECONDS),
        list_timer=gr.Timer(IDLE_SECONDS),
        listed=gr.State([]),
        offered=gr.State(""),
        owner=gr.State(["", []]),
        checked=gr.State([]),
        seen=gr.State(""),
        due=gr.State([]),
    )


def _build_account() -> dict:
    with gr.Column(elem_id="publish-account"):
        who = _html("<p>Looking for an account.</p>", "publish-who")
        if can_sign_in():
            gr.LoginButton(elem_id="publish-sign-in", size="md")
        token = gr.Textbox(
            label="Token, for one publication or import", type="password", elem_id="publish-token",
            info="From huggingface.co/settings/tokens, with the role write. Used once, kept nowhere.",
            max_lines=1, html_attributes=_NOT_KEPT,
        )  # fmt: skip
    return {"who": who, "token": token}


def _build_publication() -> dict:
    parts: dict = {}
    with gr.Column(visible=False, elem_id="publish-page") as parts["page"]:
        parts["run"] = gr.Dropdown(
            [], label="Run", elem_id="publish-run",
            info="Your finished runs, newest first; type to search.",
            allow_custom_value=True,  # the list changes while a tab is open; the server checks every run
        )  # fmt: skip
        with gr.Row(elem_classes="rsm-wide"):
            with gr.Column(scale=2, min_width=300, elem_id="publish-do"):
                parts |= _build_target()
            with gr.Column(scale=3, min_width=300), gr.Tabs(elem_id="publish-preview"):
                with gr.Tab("Model card", id="card"):
                    parts["card"] = _html(_LOADING, "publish-card")
                with gr.Tab("Files", id="files"):
                    parts["files"] = _html("", "publish-files")
    return parts


def _build_target() -> dict:
    parts: dict = {
        "repo": gr.Textbox(
            label="Repository", elem_id="publish-repo", max_lines=1,
            info="As owner/name. A new one is made; in an existing one a new revision.",
            html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocapitalize="off"),
        ),
        "visibility": gr.Radio(
            [("Public", PUBLIC), ("Private", PRIVATE)], value=PUBLIC, label="Visibility of a new repository",
            elem_id="publish-visibility",
        ),
    }  # fmt: skip
    with gr.Row(elem_id="publish-buttons"):
        parts["check"] = gr.Button("Check the repository", elem_id="publish-check", size="md")
        parts["publish"] = gr.Button(
            PUBLISH, elem_id="publish-go", variant="primary", size="md", interactive=False
        )
        parts["cancel"] = gr.Button(
            "Cancel", elem_id="publish-cancel", variant="stop", size="md", visible=False
        )
        parts["retry"] = gr.Button(
            "Try again", elem_id="publish-retry", variant="primary", size="md", visible=False
        )
    parts["problems"] = _html("", "publish-problems")
    parts["target"] = _html("", "publish-target")
    parts["status"] = _html("", "publish-status")
    return parts


def _build_import() -> dict:
    with gr.Accordion("Bring back a published LoRA", open=False, elem_id="publish-import"):
        source = gr.Textbox(
            label="Repository of a LoRA made with RSM Studio", elem_id="import-source", max_lines=1,
            placeholder="owner/name, owner/name@revision, or the address of its page",
            info="It becomes a run of yours: compare it, or train on from it. All is checked before use.",
            html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocapitalize="off"),
        )  # fmt: skip
        bring = gr.Button("Bring it here", elem_id="import-go", size="md")
        brought = _html("", "import-told")
    return {"source": source, "bring": bring, "brought": brought}


def _html(content: str, elem_id: str) -> gr.HTML:
    return gr.HTML(content, elem_id=elem_id, padding=False, elem_classes="rsm-plain")
