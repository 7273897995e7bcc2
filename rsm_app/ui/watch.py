"""The run panel: its components, and one function that brings them up to date with a run's folder.

``refresh`` only reads. What a tab has already been shown is remembered as a few stamps, and every component
whose source has not changed is skipped, so a poll costs little and nothing on the page moves without reason.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import gradio as gr

from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import LIVE, Supervisor
from rsm_app.ui import curves, form, live, pictures, result, theme

LIVE_SECONDS, IDLE_SECONDS = 1.0, 5.0
MORE_SECONDS = 120
_TITLES = {
    "reward_mean": "Training reward",
    "kl": "KL to the base model",
    "grad_norm": "Gradient norm",
}


@dataclass
class Panel:
    """The components of the run panel, in the order in which ``refresh`` fills them."""

    status: gr.HTML
    stop: gr.Button
    resume: gr.Button
    more: gr.Button
    curve_wait: gr.HTML
    live: gr.Column
    curve: gr.LinePlot
    kl: gr.LinePlot
    gradient: gr.LinePlot
    baseline: gr.Column
    baseline_gallery: gr.Gallery
    outcome: gr.Column
    result: gr.HTML
    slider: gr.ImageSlider
    pair_caption: gr.HTML
    pairs: gr.Column
    order: gr.Dropdown
    gallery: gr.Gallery
    details: gr.Column
    command: gr.Textbox
    adapter: gr.DownloadButton
    report: gr.DownloadButton
    log_box: gr.Accordion
    log: gr.Textbox
    timer: gr.Timer
    seen: gr.State

    def components(self) -> list:
        """Return every component in order."""
        return [getattr(self, info.name) for info in fields(self)]


def build_panel(empty_line: str) -> Panel:
    """Render the run panel in its empty state."""
    status = gr.HTML(live.empty_html(empty_line, waiting=True), elem_id="run-status", padding=False)
    with gr.Row(elem_id="run-buttons"):
        stop = gr.Button("Stop", elem_id="stop", variant="stop", visible=False, size="md")
        resume = gr.Button("Resume", elem_id="resume", variant="primary", visible=False, size="md")
        more = gr.Button(f"Train {MORE_SECONDS // 60} minutes more", elem_id="more", visible=False, size="md")
    with gr.Column(visible=False, elem_id="outcome") as outcome:
        outcome_html = gr.HTML(elem_id="result", padding=False)
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
    curve_wait = gr.HTML(live.CURVE_WAIT, visible=False, elem_id="curve-wait", padding=False)
    with gr.Column(visible=False, elem_id="live") as live_column:
        curve = _plot(_TITLES["reward_mean"], "Reward", "reward-plot", theme.AFTER, 240)
        with gr.Row():
            kl = _plot(_TITLES["kl"], "KL", "kl-plot", theme.THIRD, 180)
            gradient = _plot(_TITLES["grad_norm"], "Norm", "gradient-plot", theme.BEFORE, 180)
    with gr.Column(visible=False, elem_id="baseline") as baseline:
        baseline_gallery = gr.Gallery(
            label="Before training: held-out pictures of the untouched model, with their rewards",
            elem_id="before-gallery", columns=6, object_fit="contain", height="auto", allow_preview=False,
            format="png", buttons=[], interactive=False,
        )  # fmt: skip
    with gr.Column(visible=False, elem_id="pairs-column") as pairs_column:
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
    with gr.Column(visible=False, elem_id="details") as details:
        command = gr.Textbox(
            label="Repeat this run in a shell", elem_id="command", lines=2, max_lines=6, interactive=False,
            buttons=["copy"],
        )  # fmt: skip
        with gr.Row():
            adapter = gr.DownloadButton("Adapter (zip)", elem_id="adapter", interactive=False)
            report = gr.DownloadButton("Report (JSON)", elem_id="report", interactive=False)
    with gr.Accordion("Log", open=False, visible=False, elem_id="log-box") as log_box:
        log = gr.Textbox(
            label="The last lines of the run's log", elem_id="log", lines=12, max_lines=40, interactive=False,
            buttons=["copy"],
        )  # fmt: skip
    timer = gr.Timer(IDLE_SECONDS)
    seen = gr.State({})
    return Panel(
        status, stop, resume, more, curve_wait, live_column, curve, kl, gradient, baseline, baseline_gallery,
        outcome, outcome_html, slider, caption, pairs_column, order, gallery, details, command, adapter,
        report, log_box, log, timer, seen,
    )  # fmt: skip


def _plot(title: str, unit: str, elem_id: str, colour: str, height: int) -> gr.LinePlot:
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


def refresh(
    supervisor: Supervisor, panel: Panel, run_id: str, seen: dict, order: str, empty_line: str
) -> dict:
    """Return the components to change so that the panel shows a run as it is now.

    Args:
        supervisor: The runs and their queue.
        panel: The panel's components.
        run_id: The run to show; empty for none.
        seen: What this tab was shown before, as returned in ``panel.seen``.
        order: How pairs are sorted, a key of ``pictures.ORDERS``.
        empty_line: What Start would do, for the empty state.
    """
    run = supervisor.store.run(run_id)
    if run is None:
        return _refresh_empty(panel, run_id, seen, empty_line)
    known = seen if seen.get("run") == run_id else {}
    changes: dict = {}
    now = {"run": run_id}
    status = run.status()
    lines = run.folder.read_metrics()
    waits = (
        live.waiting_line(supervisor.place(run_id), supervisor.trouble) if status.state == "queued" else ""
    )
    html = live.status_html(run, status, lines[-1] if lines else None, lines[0] if lines else None, waits)
    now["status"] = hash(html)
    if known.get("status") != now["status"]:
        changes[panel.status] = html
    now["buttons"] = (status.state, run.resumable(status), run.folder.report.is_file())
    if known.get("buttons") != now["buttons"]:
        changes |= _buttons(panel, *now["buttons"])
    _refresh_curves(panel, lines, status.live, known, now, changes)
    _refresh_pictures(panel, run, status.live, order, known, now, changes)
    _refresh_details(panel, run, status.live, known, now, changes)
    _refresh_log(panel, run, known, now, changes)
    return {**changes, panel.seen: now}


def _refresh_empty(panel: Panel, run_id: str, seen: dict, empty_line: str) -> dict:
    html = live.missing_html(run_id) if run_id else live.empty_html(empty_line)
    now = {"run": run_id, "status": hash(html)}
    if seen == now:
        return {panel.seen: now}
    shown = (panel.stop, panel.resume, panel.more, panel.curve_wait, panel.live, panel.baseline)
    shown += (panel.outcome, panel.pairs, panel.details, panel.log_box)
    return {panel.status: html, panel.seen: now} | dict.fromkeys(shown, gr.update(visible=False))


def _buttons(panel: Panel, state: str, resumable: bool, compared: bool) -> dict:
    moving, queued = state in LIVE or state == "queued", state == "queued"
    return {
        panel.stop: gr.update(
            visible=moving,
            interactive=state != "stopping",
            value="Take out of the queue" if queued else "Stop",
        ),
        panel.resume: gr.update(visible=resumable),
        panel.more: gr.update(visible=not moving and compared),
        panel.timer: gr.update(value=LIVE_SECONDS if moving else IDLE_SECONDS),
    }


def _refresh_curves(panel, lines, alive, known, now, changes) -> None:
    thinned = curves.thin(lines)
    if lines and not alive and thinned[-1] is not lines[-1]:
        thinned.append(lines[-1])
    # A plot that is mounted without a line never learns to draw one, so it waits for two points.
    drawn = len(thinned) >= 2
    now["waits"] = alive and not drawn
    if known.get("waits") != now["waits"]:
        changes[panel.curve_wait] = gr.update(visible=now["waits"])
    now["curves"] = (len(thinned), thinned[-1].get("step")) if drawn else None
    if "curves" in known and known["curves"] == now["curves"]:
        return
    changes[panel.live] = gr.update(visible=drawn)
    if not drawn:
        return
    for component, key in ((panel.curve, "reward_mean"), (panel.kl, "kl"), (panel.gradient, "grad_norm")):
        changes[component] = curves.plot(thinned, {key: _TITLES[key]})


def _refresh_pictures(panel, run: Run, alive, order, known, now, changes) -> None:
    now["pairs"] = (pictures.stamp(run.folder.pairs), order)
    done = run.folder.pairs.is_file() and not alive
    now["done"] = (done, pictures.stamp(run.folder.report))
    now["baseline"] = (pictures.stamp(run.folder.samples / "before.jsonl"), done)
    if known.get("baseline") != now["baseline"]:
        drawn = [] if done else pictures.baseline_gallery(run)
        changes |= {panel.baseline: gr.update(visible=bool(drawn)), panel.baseline_gallery: drawn}
    if known.get("done") != now["done"] or (done and known.get("pairs") != now["pairs"]):
        changes |= dict.fromkeys((panel.outcome, panel.pairs), gr.update(visible=done))
        if done:
            report = run.folder.read_report()
            changes[panel.result] = result.result_html(report) if report else ""
            changes |= show_pairs(panel, run, order)


def _refresh_details(panel, run: Run, alive, known, now, changes) -> None:
    now["details"] = (pictures.stamp(run.folder.report), pictures.stamp(run.folder.config), alive)
    if known.get("details") == now["details"]:
        return
    text = form.command(run.settings())
    has_report = not alive and run.folder.report.is_file()
    changes |= {
        panel.details: gr.update(visible=True),
        panel.command: gr.update(value=text, visible=bool(text)),
        panel.adapter: _download(_adapter_zip(run) if has_report else None),
        panel.report: _download(_copy(run, run.folder.report, "report.json") if has_report else None),
    }


def _refresh_log(panel, run: Run, known, now, changes) -> None:
    now["log"] = (pictures.stamp(run.folder.log), pictures.stamp(run.worker_log))
    if known.get("log") != now["log"]:
        lines = run.log_tail()
        changes |= {panel.log_box: gr.update(visible=bool(lines)), panel.log: "\n".join(lines)}


def show_pairs(panel: Panel, run: Run, order: str) -> dict:
    """Return the gallery in an order and its first pair on the slider."""
    pairs = pictures.ordered_pairs(run, order)
    shown = min(len(pairs), pictures.GALLERY_SIZE)
    label = f"Pairs: before left, after right; {shown} of {len(pairs)} shown. Choose one for the slider."
    changes = {panel.gallery: gr.update(value=pictures.pair_gallery(run, pairs), label=label)}
    return changes | (show_pair(panel, run, pairs[0]) if pairs else {})


def show_pair(panel: Panel, run: Run, pair: dict) -> dict:
    """Return one pair on the slider with its caption."""
    large = pictures.pair_large(run, pair)
    return {panel.slider: large, panel.pair_caption: result.pair_html(pair)} if large else {}


def _download(path: Path | None):
    return gr.update(value=str(path) if path else None, interactive=path is not None)


def _download_folder(run: Run) -> Path:
    """Return a folder outside the run for files that are offered, so that the run's own stay unserved."""
    folder = Path(tempfile.gettempdir()) / "rsm-studio" / run.id
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copy(run: Run, source: Path, name: str) -> Path:
    return Path(shutil.copyfile(source, _download_folder(run) / f"{run.id}-{name}"))


def _adapter_zip(run: Run) -> Path | None:
    if not run.folder.adapter.is_dir():
        return None
    target = _download_folder(run) / f"{run.id}-adapter"
    return Path(shutil.make_archive(str(target), "zip", run.folder.adapter))
