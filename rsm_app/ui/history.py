"""The runs of an installation as a list: which of them are asked for, and what each line says.

Only the runs of the page that is shown are read from their folders; counts, states and sizes come from the
index. Times are rounded, so that a line changes only now and then while its run works.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rsm_app.jobs.exporting import without_folders
from rsm_app.jobs.index import Page, Row
from rsm_app.jobs.owners import is_address
from rsm_app.jobs.queue import Place
from rsm_app.jobs.supervisor import LIVE, Supervisor
from rsm_app.ui import live, pictures
from rsm_app.ui.machine_paths import without_paths
from rsm_app.ui.result import CLEAR_Z, decimals, duration, is_finite, number, reward_title
from trainers.methods import METHODS
from trainers.run_folder import read_json

PAGE_SIZE = 25
ALL, PINNED = "all", "pinned"
GROUPS = {
    ALL: ("All", ()),
    "queued": ("Waiting", ("queued",)),
    "live": ("At work", LIVE),
    "succeeded": ("Finished", ("succeeded",)),
    "stopped": ("Stopped early", ("stopped",)),
    "broken": ("Failed or interrupted", ("failed", "interrupted")),
    PINNED: ("Pinned", ()),
}
_MAX_TEXT = 200
_REMEMBERED = 4096
_SHORT = 110
_DOING = {
    "load": "loading",
    "baseline": "drawing the pictures before",
    "train": "training",
    "evaluate": "drawing the pictures after",
    "save": "saving",
    "done": "ending",
}


@dataclass(frozen=True)
class View:
    """What a tab looks at.

    Attributes:
        chosen: The id of the run whose buttons are shown; empty for none.
        group: Which runs are listed, a key of ``GROUPS``.
        text: Words that a listed run's line must hold.
        page: Which page of the list, from 0.
    """

    chosen: str = ""
    group: str = ALL
    text: str = ""
    page: int = 0

    @classmethod
    def read(cls, raw: object) -> View:
        """Return a view as a browser sent it, with the usual values for whatever is not one."""
        raw = raw if isinstance(raw, dict) else {}
        chosen, group, text, page = (raw.get(key) for key in ("chosen", "group", "text", "page"))
        return cls(
            chosen=chosen if isinstance(chosen, str) else "",
            group=group if isinstance(group, str) and group in GROUPS else ALL,
            text=text[:_MAX_TEXT] if isinstance(text, str) else "",
            page=page if isinstance(page, int) and not isinstance(page, bool) and page > 0 else 0,
        )


@dataclass(frozen=True)
class Outcome:
    """What a run's report says about its success.

    Attributes:
        gain: Mean gain of the reward, with its standard error and z; empty without a report.
        note: The z in words.
        tone: ``plus``, ``minus`` or empty when chance alone may have done it.
        seconds: Wall-clock seconds of the run; None without a report.
    """

    gain: str = ""
    note: str = ""
    tone: str = ""
    seconds: float | None = None


def listing(supervisor: Supervisor, view: View, me: tuple[str, ...]) -> Page:
    """Return the page of runs that a view asks for, or the last one when there are not as many.

    Args:
        supervisor: The runs.
        view: What is asked for.
        me: Who asks, see ``owner_name``.
    """
    words = view.text.casefold().split()

    def fits(run_id: str, state: str, owner: str, config: str) -> bool:
        word, _ = live.STATES.get(state, (state, ""))
        line = f"{run_id} {word} {owner_name(owner, me)}".casefold() + _searched(config)
        return all(word in line for word in words)

    return supervisor.index.page(
        PAGE_SIZE,
        offset=min(view.page, 10**6) * PAGE_SIZE,
        states=GROUPS[view.group][1],
        pinned=view.group == PINNED,
        fits=fits if words else None,
        viewer=me,
    )


@lru_cache(maxsize=_REMEMBERED)
def _searched(config: str) -> str:
    settings = json.loads(config)
    plain = (without_folders(str(settings.get(key, ""))) for key in ("model", "reward", "estimator"))
    return " ".join(("", *names(config), *plain)).casefold()


@lru_cache(maxsize=_REMEMBERED)
def names(config: str) -> tuple[str, str, str]:
    """Return the titles of model, reward and method of a run's settings, given as JSON."""
    settings = json.loads(config)
    model, estimator = str(settings.get("model", "")), str(settings.get("estimator", ""))
    return (
        live.model_title(model),
        reward_title(str(settings.get("reward", ""))),
        METHODS.get(estimator).title if estimator in METHODS else estimator,
    )


def title(row: Row) -> str:
    """Say in a few words what a run trains, and towards what."""
    model, reward, _ = names(row.config)
    return " · ".join(part for part in (model, reward) if part) or "Run without readable settings"


@lru_cache(maxsize=_REMEMBERED)
def owner_name(owner: str, me: tuple[str, ...]) -> str:
    """Return how an owner is shown: never by the address of a visitor.

    Args:
        owner: Who asked for the run, as recorded.
        me: Who looks at it, by every name that would be recorded.
    """
    if not owner:
        return "a shell"
    if owner in me:
        return "you"
    return "another visitor" if is_address(owner) else owner


def outcome(folder: Path) -> Outcome:
    """Return what the report in a run's folder says; read again only when the file has changed."""
    path = folder / "report.json"
    stamp = pictures.stamp(path)
    return _outcome(path, stamp) if any(stamp) else Outcome()


@lru_cache(maxsize=_REMEMBERED)
def _outcome(path: Path, _stamp: tuple[int, int]) -> Outcome:
    report = read_json(path) or {}
    paired, seconds = report.get("paired"), report.get("wall_seconds")
    paired = paired if isinstance(paired, dict) else {}
    gain, error, z = (paired.get(key) for key in ("mean_gain", "stderr", "z"))
    seconds = float(seconds) if is_finite(seconds) else None
    if not is_finite(gain):
        return Outcome(seconds=seconds)
    digits = decimals(gain, error)
    text = number(gain, signed=True, digits=digits)
    if is_finite(error):
        text += f" ± {number(error, digits=digits)}"
    clear = is_finite(z) and abs(z) >= CLEAR_Z
    return Outcome(
        gain=text,
        note=f"z = {number(z, digits=1)}" if is_finite(z) else "",
        tone="" if not clear else "plus" if z > 0 else "minus",
        seconds=seconds,
    )


def seconds_taken(row: Row, report: Outcome) -> float | None:
    """Return how long a run took or, in steps of ten seconds, has been at work; None before it began."""
    if row.state in LIVE:
        return (time.time() - row.started) // 10 * 10 if row.started else None
    if report.seconds is not None:
        return report.seconds
    return row.heartbeat - row.started if row.started and row.heartbeat >= row.started else None


def detail(row: Row, place: Place | None) -> str:
    """Say in a few words what a run is doing or why it ended; empty when its state says it all."""
    if row.state == "queued":
        return _queued(place)
    if row.state in LIVE:
        doing = _DOING.get(row.phase, row.phase)
        return f"{doing}, {about(row.eta_seconds)} left" if row.eta_seconds >= 0 else doing
    if row.state in ("failed", "interrupted"):
        error = without_paths(row.error)
        return error if len(error) <= _SHORT else f"{error[: _SHORT - 1].rstrip()}…"
    return ""


def _queued(place: Place | None) -> str:
    if place is None:
        return ""
    where = f"{place.position} of {place.length} in the queue"
    if place.seconds is None:
        return f"{where}, but no device of this machine can take it"
    return f"{where}, starts in {'a moment' if place.seconds < 1 else about(place.seconds)}"


def about(seconds: float) -> str:
    """Write a time to come roughly, so that it does not change every second."""
    step = 10 if seconds < 60 else 60 if seconds < 3600 else 300
    return f"about {duration(max(step, math.ceil(seconds / step) * step))}"


def size(count: float) -> str:
    """Write a number of bytes: 640 kB, 12 MB, 3.4 GB."""
    for limit, unit in ((1e6, "kB"), (1e9, "MB")):
        if count < limit:
            amount = count / (limit / 1e3)
            return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"
    return f"{count / 1e9:.1f} GB"
