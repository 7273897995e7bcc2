"""What a person should know of a run before they trust its numbers: one sentence for each kind of thing.

Notes are no errors: the run goes on. They are written where they will be read again, because what scrolls by
in a shell is forgotten: in the run's ``notes.json``, its log and its report. Torch-free.
"""

from __future__ import annotations

from collections.abc import Callable

from trainers.run_folder import RunFolder, write_json

Listener = Callable[[str], None]


class Notes:
    """The notes of one run.

    A kind has one note; a later one of the same kind takes its place. A session that continues a run reports
    the same things again, and only what is new is written and shown.
    """

    def __init__(self, folder: RunFolder, *listeners: Listener):
        """Read what earlier sessions noted; ``listeners`` are called with the text of every new note."""
        self._folder = folder
        self._listeners = listeners
        self._texts = folder.read_notes()

    def add(self, kind: str, text: str) -> None:
        """Note something.

        Args:
            kind: What it is about, as one word.
            text: Plain sentences: what is so, and what to do about it.

        Raises:
            FaultError: The run folder cannot be written.
        """
        if self._texts.get(kind) == text:
            return
        self._texts[kind] = text
        write_json(self._folder.notes, self._texts)
        for listener in self._listeners:
            listener(text)

    def has(self, kind: str) -> bool:
        """Whether there is a note of a kind."""
        return kind in self._texts

    def drop(self, kind: str) -> None:
        """Take a note back that is not true any more; errors as in ``add``."""
        if self._texts.pop(kind, None) is not None:
            write_json(self._folder.notes, self._texts)

    @property
    def texts(self) -> list[str]:
        """All notes, oldest first."""
        return list(self._texts.values())
