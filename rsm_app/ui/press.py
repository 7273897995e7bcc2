"""Buttons that answer in the next frame: pressed, they say what they are doing and cannot be pressed twice.

Gradio's page collects every input and marks every output before it paints again, a third of a second on a
page with as many settings as ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import gradio as gr
from gradio.events import Dependency

# The second frame begins when the first one is on its way to the screen; a page in the background has none.
_PAINTED = (
    "() => document.hidden ? null : new Promise("
    "done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0))))"
)


def on_press(button: gr.Button, busy: str, handler: Callable, inputs, outputs, **options) -> Dependency:
    """Let a button's press run a handler, with words on the button while it does.

    Args:
        button: What is pressed.
        busy: What it says until the handler has answered.
        handler: What to do.
        inputs: Components whose values it takes.
        outputs: Components that it fills.
        options: Of the handler's event.

    Returns:
        The handler's event; whatever becomes of it, the button is given back.
    """
    private = {"api_visibility": "private", "trigger_mode": "once"}
    pressed = button.click(None, outputs=button, js=_changing(busy, interactive=False), **private)
    event = pressed.then(None, js=_PAINTED, **private).then(handler, inputs, outputs, **options)
    event.then(None, outputs=button, js=_changing(str(button.value), interactive=True), **private)
    return event


def _changing(value: str, interactive: bool) -> str:
    change = {"__type__": "update", "value": value, "interactive": interactive}
    return f"() => ({json.dumps(change)})"
