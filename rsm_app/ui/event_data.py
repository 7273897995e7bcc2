"""What a page sends of an event beside the values of components; a program may send anything, or nothing."""

from __future__ import annotations

import gradio as gr


class Selected(gr.EventData):
    """Which item of a list was selected.

    Gradio's own ``SelectData`` fails on what holds no item, and whoever sends that fills the log.

    Attributes:
        index: Its number, from 0; None when none was said.
    """

    def __init__(self, target: object, data: object):
        """Read what was sent."""
        super().__init__(target, data)
        index = data.get("index") if isinstance(data, dict) else None
        sound = isinstance(index, int) and not isinstance(index, bool) and index >= 0
        self.index = index if sound else None
