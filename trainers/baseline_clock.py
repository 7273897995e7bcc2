"""What the comparison before training costs, over all sessions: the one after training gets as much time.

Drawing is counted batch by batch and on disk, since a session may be cut off anywhere; scoring is done anew
by every session and counted apart. Reading back pictures that an earlier session drew costs next to nothing
and is not counted.
"""

from __future__ import annotations

from trainers.run_folder import RunFolder, read_json, write_json


class BaselineClock:
    """The times in ``samples/before.json``."""

    def __init__(self, folder: RunFolder, pictures: int):
        """Go on from what earlier sessions counted.

        Args:
            folder: The run.
            pictures: All that the comparison draws.
        """
        self._file = folder.samples / "before.json"
        self._pictures = pictures
        record = read_json(self._file) or {}
        self.seconds = float(record.get("seconds", 0.0))
        self._drawing_seconds = float(record.get("drawing_seconds", 0.0))
        self._drawn = int(record.get("drawn", 0))

    def drew(self, pictures: int, seconds: float) -> None:
        """Count a batch, before its pictures are kept: of what is kept, some time is then always known."""
        self._drawing_seconds += seconds
        self._drawn += pictures
        self._write({})

    def scored(self, seconds: float) -> None:
        """Count this session's scoring of all pictures, which completes ``seconds``."""
        if self._drawn:  # a batch may have been drawn and cut off, and then drawn again
            self.seconds = self._drawing_seconds * self._pictures / self._drawn + seconds
            self._write({"seconds": self.seconds})

    def _write(self, more: dict) -> None:
        write_json(self._file, {"drawing_seconds": self._drawing_seconds, "drawn": self._drawn, **more})
