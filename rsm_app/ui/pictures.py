"""Pictures of a run, read into memory and scaled up crisply; no file of a run is ever served itself.

Paths come from the run's own JSON lines and are still checked: only files inside its ``samples`` folder
are opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from rsm_app.jobs.store import Run
from rsm_app.ui.cached import of_runs
from rsm_app.ui.result import is_finite
from trainers.image_files import UnreadableImage, load_image
from trainers.run_folder import read_lines

MISSING = "The pictures of this pair are missing."
GALLERY_SIZE = 12
STRIP_ROWS = 8
THUMBNAIL, LARGE = 128, 512
_STRIP_SIDE = 64
_STRIP_LENGTH = 64  # pictures of one look; a run draws a few
_GAP = 4
ORDERS = {
    "gain": "Largest gain first",
    "loss": "Largest loss first",
    "index": "As drawn",
}


def open_sample(run: Run, relative: object) -> Image.Image | None:
    """Open one sample picture, or return None when it is missing, damaged or outside the samples folder."""
    if not isinstance(relative, str):
        return None
    folder = run.folder.samples.resolve()
    try:
        path = (run.path / relative).resolve()
    except (OSError, ValueError):  # no name that a file can have
        return None
    if not path.is_relative_to(folder) or path.suffix.lower() not in (".png", ".webp", ".jpg"):
        return None
    try:
        return load_image(path)
    except UnreadableImage:
        return None


def enlarge(picture: Image.Image, side: int) -> Image.Image:
    """Scale a picture so that its longer side is about ``side``; small ones keep their hard pixels."""
    longest = max(picture.size)
    if longest >= side:
        picture = picture.copy()
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture
    factor = max(1, side // longest)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def baseline_lines(run: Run) -> list[dict]:
    """Return the pictures drawn before training: index, prompt, seed, reward, picture."""
    return read_lines(run.folder.samples / "before.jsonl")


def baseline_gallery(run: Run) -> list[tuple[Image.Image, str]]:
    """Return the first pictures drawn before training with their captions."""
    found = []
    for line in baseline_lines(run)[:GALLERY_SIZE]:
        picture = open_sample(run, line.get("picture"))
        if picture:
            shown = of_runs(enlarge(picture, THUMBNAIL), [run])
            found.append((shown, f"{_number(line, 'reward')} · {line.get('prompt', '')}"))
    return found


def probe_strip(run: Run, probes: Sequence[dict]) -> list[tuple[Image.Image, str]]:
    """Return one row of pictures per look at the held-out prompts, with its update and mean reward.

    Of many looks, the first, the latest and some evenly between them are shown.
    """
    found = []
    for line in _spread_out(probes, STRIP_ROWS):
        names = line.get("pictures") if isinstance(line.get("pictures"), list) else []
        drawn = [picture for name in names[:_STRIP_LENGTH] if (picture := open_sample(run, name))]
        if drawn:
            found.append((of_runs(_in_a_row(drawn), [run]), _strip_caption(line)))
    return found


def _spread_out(lines: Sequence[dict], count: int) -> list[dict]:
    if len(lines) <= count:
        return list(lines)
    return [lines[round(i * (len(lines) - 1) / (count - 1))] for i in range(count)]


def _strip_caption(line: dict) -> str:
    rewards = line.get("reward")
    numbers = (
        [value for value in rewards if isinstance(value, int | float)] if isinstance(rewards, list) else []
    )
    mean = f": mean reward {sum(numbers) / len(numbers):.2f}" if numbers else ""
    step = line.get("step")
    return f"Update {step}{mean}" if step else f"Base model{mean}"


def _in_a_row(drawn: Sequence[Image.Image]) -> Image.Image:
    side = max(_STRIP_SIDE, min(THUMBNAIL, drawn[0].width))
    parts = [enlarge(picture, side) for picture in drawn]
    width = sum(part.width for part in parts) + _GAP * (len(parts) - 1)
    canvas = Image.new("RGB", (width, max(part.height for part in parts)), "#8f99a5")
    place = 0
    for part in parts:
        canvas.paste(part, (place, 0))
        place += part.width + _GAP
    return canvas


def gain(pair: dict) -> float:
    """Return how much the reward of one pair rose; 0 when one of the two is not known."""
    before, after = pair.get("reward_before"), pair.get("reward_after")
    return float(after - before) if is_finite(before) and is_finite(after) else 0.0


def ordered_pairs(run: Run, order: str) -> list[dict]:
    """Return the before/after pairs in one of ``ORDERS``."""
    pairs = run.folder.read_pairs()
    if order == "gain":
        return sorted(pairs, key=gain, reverse=True)
    if order == "loss":
        return sorted(pairs, key=gain)
    return sorted(pairs, key=lambda pair: pair.get("index", 0))


def pair_gallery(run: Run, pairs: Sequence[dict], size: int = GALLERY_SIZE) -> list[tuple[Image.Image, str]]:
    """Return one picture per pair, before on the left and after on the right, with rewards as caption."""
    found = []
    for pair in pairs[:size]:
        before, after = open_sample(run, pair.get("before")), open_sample(run, pair.get("after"))
        if before and after:
            found.append((of_runs(side_by_side([before, after]), [run]), pair_caption(pair)))
    return found


def pair_large(run: Run, pair: dict) -> tuple[Image.Image, Image.Image] | None:
    """Return a pair's two pictures at the size of the slider."""
    before, after = open_sample(run, pair.get("before")), open_sample(run, pair.get("after"))
    if not before or not after:
        return None
    return of_runs(enlarge(before, LARGE), [run]), of_runs(enlarge(after, LARGE), [run])


def pair_caption(pair: dict) -> str:
    """Say a pair's rewards and prompt in one line."""
    rewards = f"{_number(pair, 'reward_before')} → {_number(pair, 'reward_after')}"
    return f"{rewards} ({gain(pair):+.2f}) · {pair.get('prompt', '')}"


def stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a file does: its size and modification time; zeros when it is missing."""
    try:
        info = path.stat()
    except OSError:
        return (0, 0)
    return (info.st_size, info.st_mtime_ns)


def side_by_side(drawn: Sequence[Image.Image]) -> Image.Image:
    """Return pictures in a row, at the size of a gallery."""
    parts = [enlarge(picture, THUMBNAIL) for picture in drawn]
    width = sum(part.width for part in parts) + _GAP * (len(parts) - 1)
    canvas = Image.new("RGB", (width, max(part.height for part in parts)), "#8f99a5")
    left = 0
    for part in parts:
        canvas.paste(part, (left, 0))
        left += part.width + _GAP
    return canvas


def _number(line: dict, key: str) -> str:
    value = line.get(key)
    return f"{value:.2f}" if isinstance(value, int | float) else "?"
