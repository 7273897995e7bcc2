"""The command line's progress bar: phase, updates, pictures per second and time left."""

from __future__ import annotations

import contextlib
import sys

from tqdm import tqdm

from trainers.run_folder import RunStatus
from trainers.terminal import printable, report

FORMAT = "{percentage:3.0f}%|{bar:24}| {desc}"


class ProgressBar:
    """Shows statuses on a terminal as one moving line, elsewhere as one line per phase and percent step."""

    def __init__(self):
        """Create the bar; nothing is shown yet."""
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=100, bar_format=FORMAT, disable=not self._terminal, file=sys.stderr)
        self._last = ("", -1)

    def __enter__(self) -> ProgressBar:
        """Return the bar."""
        return self

    def __exit__(self, *_) -> None:
        """Leave the last line on the screen."""
        with contextlib.suppress(OSError):
            self._bar.close()

    def show(self, status: RunStatus) -> None:
        """Show a status."""
        text = describe(status)
        if self._terminal:
            self._bar.n = round(100 * status.progress)
            with contextlib.suppress(OSError):  # the terminal is gone: no reason to end a run
                self._bar.set_description_str(printable(text))
            return
        key = (status.phase, round(10 * status.progress))
        if key != self._last:
            report(text)
            self._last = key

    def note(self, text: str) -> None:
        """Show a note above the bar."""
        tqdm.write(f"Note: {text}", file=sys.stderr)
        sys.stderr.flush()


def describe(status: RunStatus) -> str:
    """Return a status in words."""
    parts = [status.phase]
    if status.updates:
        parts.append(f"update {status.updates}")
        parts.append(f"{status.images_per_second:.0f} images/s")
    if status.eta_seconds is not None and status.phase == "train":
        parts.append(f"ETA {int(status.eta_seconds) // 60}:{int(status.eta_seconds) % 60:02d}")
    return " · ".join([*parts, status.message])
