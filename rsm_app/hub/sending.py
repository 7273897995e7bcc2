"""The files of a push as the library takes them: what is read is counted, and reading ends when it is
cancelled.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable

from huggingface_hub import CommitOperationAdd

from rsm_app.hub.bundle import Bundle, BundleFile
from rsm_app.hub.wire import Conversation


class Counted(io.BufferedIOBase):
    """A file whose reading is counted once it is being sent."""

    def __init__(self, file: BundleFile, talk: Conversation, told: Callable[[], None]):
        """Open a file.

        Args:
            file: What is sent; it stays open, so that a run that goes on does not change it midway.
            talk: The conversation that the sending belongs to.
            told: Called after every piece.
        """
        self._inner = file.open()
        self._talk = talk
        self._told = told
        self.sending = False
        self.sent = 0

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, or raise ``Cancelled``."""
        if not self.sending:
            return self._inner.read(size)
        self._talk.check()
        piece = self._inner.read(size)
        self.sent = max(self.sent, self._inner.tell())
        self._told()
        return piece

    def tell(self) -> int:
        """Return the position; the library asks for it in the thread that is about to send the file."""
        if self.sending:
            self._talk.join()
        return self._inner.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, as any file does."""
        return self._inner.seek(offset, whence)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Close the file."""
        self._inner.close()
        super().close()


class Freight:
    """All files of one push."""

    def __init__(self, bundle: Bundle, talk: Conversation, told: Callable[[int], None]):
        """Open every file and let the library hash it; ``told`` hears how many bytes are sent."""
        self._told = told
        self.files = [Counted(file, talk, self._count) for file in bundle.files]
        self.operations = [
            CommitOperationAdd(file.path, counted)
            for file, counted in zip(bundle.files, self.files, strict=True)
        ]
        for counted in self.files:
            counted.sending = True

    def rewind(self) -> None:
        """Go back to the beginning of every file, where a try that was cut off did not."""
        for counted in self.files:
            counted.seek(0)

    def close(self) -> None:
        """Close every file."""
        for counted in self.files:
            counted.close()

    def _count(self) -> None:
        self._told(sum(counted.sent for counted in self.files))
