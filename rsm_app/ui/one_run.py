"""Before and after of one run: verdict, statistics, histogram, and pairs to sort, filter and look at."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from rsm_app.jobs.store import Run
from rsm_app.ui import gains, pictures, result

SHOWN_AT_FIRST, SHOWN_MORE = 12, 24


@dataclass
class Panel:
    """The components of the part, and what the tab shows."""

    result: gr.HTML
    statistics: gr.HTML
    histogram: gr.BarPlot
    slider: gr.ImageSlider
    caption: gr.HTML
    try_pair: gr.Button
    order: gr.Dropdown
    which: gr.Radio
    gallery: gr.Gallery
    none: gr.HTML
    more: gr.Button
    shown: gr.State
    chosen: gr.State

    def outputs(self) -> list:
        """Return everything that showing a run changes."""
        return [*self.pair_outputs(), self.result, self.statistics, self.histogram]

    def pair_outputs(self) -> list:
        """Return everything that another order or filter changes."""
        return [self.gallery, self.none, self.more, self.shown, *self.slider_outputs()]

    def slider_outputs(self) -> list:
        """Return everything that choosing a pair changes."""
        return [self.slider, self.caption, self.try_pair, self.chosen]


def build_panel() -> Panel:
    """Render the part without a run."""
    verdict = gr.HTML(elem_id="compare-result", padding=False, elem_classes="rsm-plain")
    with gr.Row(elem_classes="rsm-wide"):
        with gr.Column(min_width=300):
            slider = gr.ImageSlider(
                label="Before (left), after (right)", elem_id="compare-slider",
                format="png", interactive=False, buttons=["fullscreen"], max_height=420,
            )  # fmt: skip
            caption = gr.HTML(elem_id="compare-caption", padding=False, elem_classes="rsm-plain")
            try_pair = gr.Button("Try this pair in the playground", elem_id="try-pair", size="md")
        with gr.Column(min_width=300):
            statistics = gr.HTML(elem_id="compare-statistics", padding=False, elem_classes="rsm-plain")
            histogram = gr.BarPlot(
                title="How much the pairs gained", x="gain", y="pairs", color="kind",
                x_title="Gain in reward", y_title="Pairs", color_title=" ", y_aggregate="sum",
                color_map=gains.KINDS, height=260, buttons=[], elem_id="histogram", elem_classes="rsm-plot",
            )  # fmt: skip
    order, which, gallery, none, more = _build_pairs()
    return Panel(
        verdict, statistics, histogram, slider, caption, try_pair, order, which, gallery, none, more,
        gr.State([]), gr.State(None),
    )  # fmt: skip


def _build_pairs() -> tuple:
    with gr.Row(elem_classes="rsm-wide"):
        order = gr.Dropdown(
            [(title, key) for key, title in pictures.ORDERS.items()], value="gain", label="Sort pairs",
            elem_id="compare-order", filterable=False,
        )  # fmt: skip
        which = gr.Radio(
            [(title, key) for key, title in gains.FILTERS.items()],
            value="all",
            label="Show pairs",
            elem_id="compare-filter",
        )
    gallery = gr.Gallery(
        label="Pairs", elem_id="compare-pairs", elem_classes="rsm-gallery", columns=4, object_fit="contain",
        height="auto", allow_preview=False, format="png", buttons=[], interactive=False,
    )  # fmt: skip
    none = gr.HTML(elem_id="no-pairs", visible=False, padding=False, elem_classes="rsm-plain")
    more = gr.Button("Show more pairs", elem_id="more-pairs", visible=False)
    return order, which, gallery, none, more


def show(panel: Panel, run: Run, order: str, which: str) -> dict:
    """Return the changes that show a run."""
    report, pairs = run.folder.read_report() or {}, run.folder.read_pairs()
    bars, width = gains.histogram(pairs)
    drawn = gr.update(value=bars, x_bin=width, y_lim=[0, None], visible=bool(bars["data"]))
    return {
        panel.result: result.result_html(report),
        panel.statistics: gains.statistics_html(report, pairs),
        panel.histogram: drawn,
        **show_pairs(panel, run, order, which),
    }


def show_pairs(panel: Panel, run: Run, order: str, which: str, size: int = SHOWN_AT_FIRST) -> dict:
    """Return the pairs in an order, filtered, with the first one on the slider."""
    pairs = gains.filtered(pictures.ordered_pairs(run, order), which)
    first = pairs[0] if pairs else None
    return show_gallery(panel, run, pairs, size) | show_pair(panel, run, first)


def show_gallery(panel: Panel, run: Run, pairs: list[dict], size: int) -> dict:
    """Return the first ``size`` pairs as a gallery; one whose picture is gone is left out."""
    found = [(pair, item) for pair in pairs[:size] for item in pictures.pair_gallery(run, [pair])]
    label = f"Before left, after right; {len(found)} of {len(pairs)} pairs. Choose one for the slider."
    sentence = "No pair of this run is like that." if not pairs else "The pictures of these pairs are gone."
    left = max(0, len(pairs) - size)
    return {
        panel.gallery: gr.update(value=[item for _, item in found], label=label, visible=bool(found)),
        panel.none: gr.update(value=f'<p class="rsm-curve-wait rsm-low">{sentence}</p>', visible=not found),
        panel.more: gr.update(visible=left > 0, value=f"Show {min(left, SHOWN_MORE)} more pairs"),
        panel.shown: [pair.get("index") for pair, _ in found],
    }


def show_more(panel: Panel, run: Run, order: str, which: str, shown: list) -> dict:
    """Return a longer gallery; the slider stays as it is."""
    pairs = gains.filtered(pictures.ordered_pairs(run, order), which)
    return show_gallery(panel, run, pairs, len(shown) + SHOWN_MORE)


def show_pair(panel: Panel, run: Run, pair: dict | None) -> dict:
    """Return one pair on the slider, or an empty slider."""
    large = pictures.pair_large(run, pair) if pair else None
    if pair is None or large is None:
        text = pictures.MISSING if pair else "No pair is chosen."
        empty = f'<p class="rsm-pair"><span>{text}</span></p>'
        hidden = gr.update(visible=False)
        return {panel.slider: None, panel.caption: empty, panel.try_pair: hidden, panel.chosen: None}
    return {
        panel.slider: large,
        panel.caption: result.pair_html(pair),
        panel.try_pair: gr.update(visible=True),
        panel.chosen: pair.get("index"),
    }


def pair_of(run: Run, index: object) -> dict | None:
    """Return a run's pair by its number."""
    return next((pair for pair in run.folder.read_pairs() if pair.get("index") == index), None)
