"""What the run panel shows of a run: a cheap look by every tick, and parts that are filled when due.

Gradio builds every output of a handler anew, also those that are skipped, and a queued event costs twice as
much as a direct one. So a tick is direct and has few outputs: the head of the panel and a ticket. A ticket
that has changed lets the page ask for the stamps of the parts, and a stamp that has changed for that part
alone. Everything here only reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import gradio as gr

from rsm_app.jobs.exporting import without_folders
from rsm_app.jobs.states import ENDED
from rsm_app.jobs.store import Run
from rsm_app.jobs.supervisor import LIVE, Supervisor
from rsm_app.ui import curves, form, live, pictures, result, theme
from rsm_app.ui.machine_paths import without_paths
from rsm_app.ui.panel import IDLE_SECONDS, TITLES, Panel
from rsm_app.ui.run_table import publish_link
from rsm_app.ui.sight import Sight, metrics_of, probes_of
from trainers.errors import InputError
from trainers.preflight import groups_per_rollout
from trainers.run_folder import RunFolder
from trainers.symptoms import symptoms

LIVE_SECONDS = 1.0


@dataclass(frozen=True)
class Part:
    """Components that are filled together.

    Attributes:
        names: Their attributes in ``Panel``.
        stamp: What tells whether they are still as shown; short, because every tick compares it. None when
            there is nothing to show.
        show: Fills them; a component that is left out stays as it is.
        hidden: Those that disappear when there is nothing to show.
    """

    names: tuple[str, ...]
    stamp: Callable[[Sight], object]
    show: Callable[[Panel, Sight], dict]
    hidden: tuple[str, ...]

    def components(self, panel: Panel) -> list:
        """Return the part's components."""
        return [getattr(panel, name) for name in self.names]

    def fill(self, panel: Panel, sight: Sight | None) -> dict:
        """Return what to change so that the part shows a run as it is now, or nothing for none."""
        if sight is not None and self.stamp(sight) is not None:
            return self.show(panel, sight)
        return {getattr(panel, name): gr.update(visible=False) for name in self.hidden}


def look(
    supervisor: Supervisor, panel: Panel, sight: Sight | None, asked: str, seen: str, empty: str
) -> dict:
    """Return the head of the panel, and a ticket that changes when any of its parts does.

    Args:
        supervisor: The runs and their queue.
        panel: The panel's components.
        sight: The run to show; None for none.
        asked: The id of a run that was asked for.
        seen: The head that this tab was shown last, as returned in ``panel.seen``.
        empty: What Start would do, for the empty state.
    """
    if sight is None:
        html = live.missing_html(asked) if asked else live.empty_html(empty)
    else:
        html = _head(supervisor, sight)
    shown = str(hash(html))
    ticket = str(hash(repr([_due(part, sight) for part in PARTS.values()])))
    return {panel.status: gr.skip() if shown == seen else html, panel.seen: shown, panel.ticket: ticket}


def due(panel: Panel, sight: Sight | None) -> dict:
    """Return the stamps of the parts; a part is filled when its own has changed."""
    return {panel.due[name]: _due(part, sight) for name, part in PARTS.items()}


def _due(part: Part, sight: Sight | None) -> list:
    stamp = part.stamp(sight) if sight else None
    return [] if stamp is None else [sight.run.id, stamp]


def _head(supervisor: Supervisor, sight: Sight) -> str:
    run, status, lines = sight.run, sight.status, sight.lines
    waits = ""
    if status.state == "queued":
        waits = live.waiting_line(supervisor.place(run.id), supervisor.trouble)
    return live.status_html(run, status, lines[-1] if lines else None, lines[0] if lines else None, waits)


def _buttons_stamp(sight: Sight) -> object:
    run, status = sight.run, sight.status
    return [status.state, run.resumable(status), run.folder.report.is_file(), sight.mine]


def _buttons(panel: Panel, sight: Sight) -> dict:
    state, resumable, compared, mine = _buttons_stamp(sight)
    moving, queued = state in LIVE or state == "queued", state == "queued"
    return {
        panel.stop: gr.update(
            visible=moving and mine,
            interactive=state != "stopping",
            value="Take out of the queue" if queued else "Stop",
        ),
        panel.resume: gr.update(visible=resumable and mine and state != "failed"),
        panel.retry: gr.update(visible=mine and state == "failed"),
        panel.more: gr.update(visible=not moving and compared and mine),
        panel.duplicate: gr.update(visible=not moving),
        panel.publish: gr.update(
            visible=not moving and compared and mine and state != "failed",
            link=publish_link(sight.run.id),
        ),
        panel.timer: gr.update(value=LIVE_SECONDS if moving else IDLE_SECONDS),
    }


def _drawn(sight: Sight) -> list[dict]:
    """Return the points of the curves; none until there are two.

    A plot that is mounted without a line never learns to draw one.
    """
    lines, alive = sight.lines, sight.status.live
    thinned = curves.thin(lines)
    if lines and not alive and thinned[-1] is not lines[-1]:
        thinned.append(lines[-1])
    return thinned if len(thinned) >= 2 else []


def _curves_stamp(sight: Sight) -> object:
    points = _drawn(sight)
    return [len(points), points[-1].get("step")] if points else sight.status.live or None


def _curves(panel: Panel, sight: Sight) -> dict:
    points = _drawn(sight)
    changes = {
        panel.curve_wait: gr.update(visible=not points),
        panel.live: gr.update(visible=bool(points)),
    }
    if not points:
        return changes
    drawn_in = {
        "reward_mean": panel.curve,
        "kl": panel.kl,
        "grad_norm": panel.gradient,
        "clip_fraction": panel.clip,
    }
    return changes | {plot: curves.plot(points, {key: TITLES[key]}) for key, plot in drawn_in.items()}


def _signs_html(sight: Sight) -> str:
    folder = sight.run.folder
    files = (folder.metrics, folder.probes, folder.notes)
    return _signs_of(folder.path, *map(pictures.stamp, files))


@lru_cache(maxsize=64)
def _signs_of(path: Path, *_stamps: tuple) -> str:
    folder = RunFolder(path)
    settings = folder.read_config()
    try:
        groups = groups_per_rollout(form.restored_config(settings))
    except InputError:
        groups = 0
    lines, probes = metrics_of(folder.metrics), probes_of(folder.probes)
    found = symptoms(lines, probes, groups, str(settings.get("reward", "")))
    return live.symptoms_html([*folder.read_notes().values(), *(symptom.text for symptom in found)])


def _signs(panel: Panel, sight: Sight) -> dict:
    return {panel.symptoms: gr.update(value=_signs_html(sight), visible=True)}


def _looks(panel: Panel, sight: Sight) -> dict:
    """Fill what comes from the looks at held-out prompts."""
    probes = sight.probes
    points = curves.thin(curves.probe_lines(probes))
    titles = {name: result.reward_title(name) for name in curves.other_names(points)}
    drawn = len(points) >= 2  # as with the other plots, a line needs two points when it is first drawn
    changes = {
        panel.heldout: gr.update(visible=drawn),
        panel.others: gr.update(visible=drawn and bool(titles)),
    }
    if drawn:
        changes[panel.heldout_curve] = curves.plot(points, {curves.HELDOUT: TITLES[curves.HELDOUT]})
        colours = theme.distinct(titles.values())
        lines = curves.plot(points, titles)
        changes[panel.others_curves] = gr.update(value=lines, color_map=colours)
        changes[panel.others_legend] = live.legend_html(colours)
    strip = pictures.probe_strip(sight.run, probes)
    changes |= {panel.strip_column: gr.update(visible=bool(strip)), panel.strip: strip}
    return changes | {panel.strip_prompts: live.strip_html(probes)}


def _baseline_stamp(sight: Sight) -> object:
    return None if sight.done else _present(sight.run.folder.samples / "before.jsonl")


def _baseline(panel: Panel, sight: Sight) -> dict:
    drawn = pictures.baseline_gallery(sight.run)
    return {panel.baseline: gr.update(visible=bool(drawn)), panel.baseline_gallery: drawn}


def _outcome_stamp(sight: Sight) -> object:
    folder = sight.run.folder
    return [pictures.stamp(folder.report), pictures.stamp(folder.pairs)] if sight.done else None


def _outcome(panel: Panel, sight: Sight) -> dict:
    report = sight.run.folder.read_report()
    changes = dict.fromkeys((panel.outcome, panel.pairs), gr.update(visible=True))
    changes[panel.result] = result.result_html(report) if report else ""
    return changes | show_pairs(panel, sight.run, sight.order)


def _details(panel: Panel, sight: Sight) -> dict:
    settings = sight.run.settings()
    text = form.command(settings if sight.at_machine else without_folders(settings))
    return {panel.details: gr.update(visible=True), panel.command: gr.update(value=text, visible=bool(text))}


def _files_stamp(sight: Sight) -> object:
    return _present(sight.run.folder.report) if sight.mine and sight.status.state in ENDED else None


def _files(panel: Panel, sight: Sight) -> dict:
    return {
        panel.adapter: gr.update(visible=sight.run.folder.adapter.is_dir()),
        panel.report: gr.update(visible=True),
        panel.save: gr.update(visible=False, value=None),  # it held a file of what was shown before
    }


def _log_stamp(sight: Sight) -> object:
    files = [pictures.stamp(path) for path in (sight.run.folder.log, sight.run.worker_log)]
    return files if any(size for size, _ in files) else None


def _log(panel: Panel, sight: Sight) -> dict:
    text = "\n".join(sight.run.log_tail())
    text = text if sight.at_machine else without_paths(text)
    return {panel.log_box: gr.update(visible=bool(text)), panel.log: text}


def _present(path: Path) -> tuple | None:
    """Return a file's stamp, or None when there is no such file."""
    found = pictures.stamp(path)
    return found if any(found) else None


PARTS = {
    "buttons": Part(
        ("stop", "resume", "retry", "more", "duplicate", "publish", "timer"),
        _buttons_stamp,
        _buttons,
        ("stop", "resume", "retry", "more", "duplicate", "publish"),
    ),
    "curves": Part(
        ("curve_wait", "live", "curve", "kl", "gradient", "clip"),
        _curves_stamp,
        _curves,
        ("curve_wait", "live"),
    ),
    # The words themselves: a reader would else be told again at every update.
    "signs": Part(("symptoms",), lambda sight: _signs_html(sight) or None, _signs, ("symptoms",)),
    "looks": Part(
        (
            "heldout", "heldout_curve", "others", "others_curves", "others_legend", "strip_column", "strip",
            "strip_prompts",
        ),
        lambda sight: _present(sight.run.folder.probes),
        _looks,
        ("heldout", "others", "strip_column"),
    ),
    "baseline": Part(("baseline", "baseline_gallery"), _baseline_stamp, _baseline, ("baseline",)),
    "outcome": Part(
        ("outcome", "pairs", "result", "gallery", "slider", "pair_caption"),
        _outcome_stamp,
        _outcome,
        ("outcome", "pairs"),
    ),
    "details": Part(
        ("details", "command"), lambda sight: pictures.stamp(sight.run.folder.config), _details, ("details",)
    ),
    "files": Part(("adapter", "report", "save"), _files_stamp, _files, ("adapter", "report", "save")),
    "log": Part(("log_box", "log"), _log_stamp, _log, ("log_box",)),
}  # fmt: skip


def show_pairs(panel: Panel, run: Run, order: str) -> dict:
    """Return the gallery in an order and its first pair on the slider."""
    pairs = pictures.ordered_pairs(run, order)
    shown = min(len(pairs), pictures.GALLERY_SIZE)
    label = f"Pairs: before left, after right; {shown} of {len(pairs)} shown. Choose one for the slider."
    changes = {panel.gallery: gr.update(value=pictures.pair_gallery(run, pairs), label=label)}
    return changes | (show_pair(panel, run, pairs[0]) if pairs else {})


def show_pair(panel: Panel, run: Run, pair: dict) -> dict:
    """Return one pair on the slider with its caption, or an empty slider where a picture is missing."""
    large = pictures.pair_large(run, pair)
    caption = result.pair_html(pair) if large else f'<p class="rsm-pair"><span>{pictures.MISSING}</span></p>'
    return {panel.slider: large, panel.pair_caption: caption}
