"""Colours and type of the page, light and dark; layout rules live in ``assets/style.css``.

System fonts only: a web font would delay the first paint and needs a network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import gradio as gr

INK = gr.themes.Color(
    name="ink",
    c50="#f6f7f8", c100="#eceef0", c200="#d9dde1", c300="#b9c0c8", c400="#8f99a5", c500="#697482",
    c600="#515b68", c700="#3a434e", c800="#232a33", c900="#181d24", c950="#11151a",
)  # fmt: skip
TEAL = gr.themes.Color(
    name="rsm-teal",
    c50="#eefaf8", c100="#d3f2ec", c200="#a7e4da", c300="#6fcfc2", c400="#3cb5a7", c500="#1d998c",
    c600="#0f7a70", c700="#0d635c", c800="#0e4f4a", c900="#0f413e", c950="#042624",
)  # fmt: skip

BEFORE, AFTER, THIRD = "#b26a00", "#1d998c", "#7561c9"
SERIES = (AFTER, BEFORE, THIRD, "#c2456b", "#3f7fc4", "#7d8a1f")
_MORE = (
    "#a0522d", "#5f9e4a", "#7a7f87", "#d9542b", "#1fa2b8", "#a64fb0", "#b0903a", "#4a5fc1", "#8c5a6e",
    "#3d8b6d", "#e0759b", "#6b7f3a", "#9a6fd8", "#c26a5a",
)  # fmt: skip
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


_TOKENS = {
    "body_background_fill": "#f4f5f3",
    "body_background_fill_dark": "#11151a",
    "body_text_color": "#1b2129",
    "body_text_color_dark": "#e6eaee",
    "body_text_color_subdued": "#59636f",
    "body_text_color_subdued_dark": "#a2adb9",
    "block_background_fill": "#ffffff",
    "block_background_fill_dark": "#181d24",
    "block_border_color": "#dfe3e6",
    "block_border_color_dark": "#2c343e",
    "block_border_width": "1px",
    "block_label_background_fill": "#ffffff",
    "block_label_background_fill_dark": "#181d24",
    "block_label_text_color": "#3a434e",
    "block_label_text_color_dark": "#c3cbd4",
    "block_title_text_color": "#1b2129",
    "block_title_text_color_dark": "#e6eaee",
    "block_title_text_weight": "600",
    "block_info_text_color": "#59636f",
    "block_info_text_color_dark": "#a2adb9",
    "block_shadow": "none",
    "input_background_fill": "#fbfcfc",
    "input_background_fill_dark": "#11151a",
    "input_border_color": "#b9c0c8",
    "input_border_color_dark": "#3a434e",
    "border_color_primary": "#dfe3e6",
    "border_color_primary_dark": "#2c343e",
    "button_primary_background_fill": "#0f7a70",
    "button_primary_background_fill_hover": "#0d635c",
    "button_primary_background_fill_dark": "#3cb5a7",
    "button_primary_background_fill_hover_dark": "#6fcfc2",
    "button_primary_text_color": "#ffffff",
    "button_primary_text_color_dark": "#042624",
    "button_primary_text_color_hover": "#ffffff",
    "button_primary_text_color_hover_dark": "#042624",
    "button_secondary_background_fill": "#ffffff",
    "button_secondary_background_fill_dark": "#202731",
    "button_secondary_background_fill_hover": "#eef1f2",
    "button_secondary_background_fill_hover_dark": "#2c343e",
    "button_secondary_border_color": "#8f99a5",
    "button_secondary_border_color_dark": "#515b68",
    "button_border_width": "1px",
    "button_cancel_background_fill": "#ffffff",
    "button_cancel_background_fill_dark": "#181d24",
    "button_cancel_background_fill_hover": "#fbeceb",
    "button_cancel_background_fill_hover_dark": "#2f1f20",
    "button_cancel_border_color": "#b3261e",
    "button_cancel_border_color_dark": "#ff9d94",
    "button_cancel_text_color": "#b3261e",
    "button_cancel_text_color_dark": "#ff9d94",
    "button_cancel_text_color_hover": "#8c1d17",
    "button_cancel_text_color_hover_dark": "#ffc4be",
    "input_border_width": "1px",
    "checkbox_label_border_width": "1px",
    "checkbox_label_border_width_dark": "1px",
    "checkbox_label_border_color": "#dfe3e6",
    "checkbox_label_border_color_dark": "#2c343e",
    "checkbox_label_background_fill": "#fbfcfc",
    "checkbox_label_background_fill_dark": "#11151a",
    "checkbox_label_background_fill_hover": "#eef1f2",
    "checkbox_label_background_fill_hover_dark": "#202731",
    "checkbox_border_width": "1px",
    "checkbox_border_color": "#8f99a5",
    "checkbox_border_color_dark": "#697482",
    "checkbox_label_background_fill_selected": "#eefaf8",
    "checkbox_label_background_fill_selected_dark": "#0f2f2d",
    "checkbox_label_border_color_selected": "#0f7a70",
    "checkbox_label_border_color_selected_dark": "#3cb5a7",
    "checkbox_label_text_color_selected": "#1b2129",
    "checkbox_label_text_color_selected_dark": "#e6eaee",
}


def distinct(names: Iterable[str]) -> dict[str, str]:
    """Give each line of one plot a colour of its own, in the order of the lines; past 20 they repeat."""
    return dict(zip(names, itertools.cycle((*SERIES, *_MORE)), strict=False))


def build_theme() -> gr.themes.Base:
    """Return the theme of every page."""
    return gr.themes.Base(
        primary_hue=TEAL,
        secondary_hue=TEAL,
        neutral_hue=INK,
        radius_size=gr.themes.sizes.radius_md,
        font=_SANS,
        font_mono=_MONO,
    ).set(**_TOKENS)
