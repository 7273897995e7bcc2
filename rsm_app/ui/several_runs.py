"""Two to six runs beside each other: a table of gains, curves on one plot, pictures of the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from rsm_app.jobs.store import Run
from rsm_app.ui import contest

SHOWN_STRIPS = 12
METRICS = {"reward_mean": ("Training reward", "Reward"), "kl": ("KL to the base model", "KL")}
CHOOSE = f"Choose {contest.MIN_RUNS} to {contest.MAX_RUNS} finished runs above."


@dataclass
class Panel:
    """The components of the part."""

    runs: gr.Dropdown
    axis: gr.Radio
    wait: gr.HTML
    body: gr.Column
    table: gr.HTML
    heldout: gr.LinePlot
    note: gr.HTML
    curves: dict[str, gr.LinePlot]
    sentence: gr.HTML
    gallery: gr.Gallery

    def outputs(self) -> list:
        """Return everything that another choice changes."""
        shown = [self.wait, self.body, self.table, self.sentence, self.gallery]
        return [*shown, *self.curve_outputs()]

    def curve_outputs(self) -> list:
        """Return everything that another axis changes."""
        return [self.heldout, self.note, *self.curves.values()]


def build_panel() -> Panel:
    """Render the part with nothing chosen."""
    runs = gr.Dropdown(
        [], multiselect=True, max_choices=contest.MAX_RUNS, label="Runs to compare", elem_id="several-runs",
        info="They are called A, B, C, … in this order.",
    )  # fmt: skip
    runs.preprocess = lambda payload: (
        payload
    )  # the list grows while a tab is open; ids are checked by the store
    wait = gr.HTML(_waiting(CHOOSE), elem_id="several-wait", padding=False, elem_classes="rsm-plain")
    with gr.Column(visible=False, elem_id="several-body") as body:
        table = gr.HTML(elem_id="several-table", padding=False, elem_classes="rsm-plain")
        axis = gr.Radio(
            [(title, key) for key, title in contest.AXES.items()], value="step", label="Curves over",
            elem_id="several-axis",
        )  # fmt: skip
        with gr.Row(elem_classes="rsm-wide"):
            plots = {key: _plot(title, unit, f"several-{key}") for key, (title, unit) in METRICS.items()}
        heldout = _plot("Held-out reward", "Reward", "several-heldout")
        note = gr.HTML(elem_id="several-note", padding=False, elem_classes="rsm-plain")
        sentence = gr.HTML(elem_id="several-sentence", padding=False, elem_classes="rsm-plain")
        gallery = gr.Gallery(
            label="Pictures", elem_id="several-pictures", elem_classes="rsm-gallery", columns=2,
            object_fit="contain", height="auto", allow_preview=False, format="png", buttons=[],
            interactive=False,
        )  # fmt: skip
    return Panel(runs, axis, wait, body, table, heldout, note, plots, sentence, gallery)


def _plot(title: str, unit: str, elem_id: str) -> gr.LinePlot:
    return gr.LinePlot(
        title=title, x="step", y="value", color="run", x_title="Updates", y_title=unit, color_title="Run",
        height=260, buttons=[], x_axis_format="~g", elem_id=elem_id, elem_classes="rsm-plot", min_width=300,
    )  # fmt: skip


def show(panel: Panel, runs: Sequence[Run], asked: int) -> dict:
    """Return the changes that compare runs; their curves come with ``show_curves``.

    Args:
        panel: The components.
        runs: Those of the chosen ones that can be compared.
        asked: How many were chosen.
    """
    if not contest.MIN_RUNS <= len(runs) <= contest.MAX_RUNS:
        return {panel.wait: gr.update(value=_waiting(_why(len(runs), asked)), visible=True)} | {
            panel.body: gr.update(visible=False)
        }
    chosen = contest.entries(runs)
    shared = contest.shared_pairs(chosen)
    drawn = contest.strips(chosen, shared, SHOWN_STRIPS)
    order = ["before", *(e.letter for e in chosen)] if contest.shows_before(chosen, shared) else None
    places = ", ".join(order or [entry.letter for entry in chosen])
    gone = f" {asked - len(runs)} chosen run is gone." if asked > len(runs) else ""
    return {
        panel.wait: gr.update(visible=False),
        panel.body: gr.update(visible=True),
        panel.table: contest.table_html(chosen),
        panel.sentence: _told(f"{shared.sentence}{gone}"),
        panel.gallery: gr.update(
            value=drawn,
            visible=bool(drawn),
            label=f"Left to right: {places}; {len(drawn)} of {len(shared.rows)} shown",
        ),
        **hide_curves(panel),
    }


def hide_curves(panel: Panel) -> dict:
    """Take the plots off the page: one whose series and data change at once may keep the old lines."""
    return {plot: gr.update(visible=False) for plot in (*panel.curves.values(), panel.heldout)}


def show_curves(panel: Panel, chosen: Sequence[contest.Entry], axis: str) -> dict:
    """Return the curves over an axis."""
    axis = axis if axis in contest.AXES else "step"
    common = {"x": axis, "x_title": contest.AXES[axis], "color_map": contest.colours(chosen)}
    changes: dict = {}
    for key, plot in panel.curves.items():
        data = contest.training_curves(chosen, key, axis)
        changes[plot] = gr.update(value=data, visible=bool(data["data"]), **common)
    heldout = contest.heldout_curves(chosen, axis)
    changes[panel.heldout] = gr.update(value=heldout, visible=bool(heldout["data"]), **common)
    changes[panel.note] = _told(_heldout_note(chosen))
    return changes


def _heldout_note(chosen: Sequence[contest.Entry]) -> str:
    looked = contest.probed(chosen)
    ends = [entry.letter for entry in chosen if entry.letter not in looked]
    told = []
    if looked:
        told.append(f"{', '.join(looked)}: a few held-out prompts, looked at again and again while training.")
    if ends:
        told.append(f"{', '.join(ends)}: the comparison's mean before and after, joined by a straight line.")
    return " ".join(told)


def _why(found: int, asked: int) -> str:
    if asked > contest.MAX_RUNS:
        return f"At most {contest.MAX_RUNS} runs fit; take {asked - contest.MAX_RUNS} away."
    if asked > found:
        return f"{asked - found} of the chosen runs cannot be compared any more. {CHOOSE}"
    return "Choose one more run." if found == 1 else CHOOSE


def _waiting(text: str) -> str:
    return f'<p class="rsm-curve-wait rsm-low" role="status">{text}</p>'


def _told(text: str) -> str:
    return f'<p class="rsm-facts">{text}</p>'
