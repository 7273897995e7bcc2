"""The errors a person may see: one clear sentence each, and the exit code of the process.

The command line and the page print `str(error)` of these and nothing else; the traceback goes to the
run's `log.txt`. Anything that is not a `StudioError` is a defect of the program. Imports no torch.
"""

from collections.abc import Iterable
from itertools import chain


class StudioError(Exception):
    """Base of every error whose text is a sentence written for the user."""

    exit_code = 1


class InputError(StudioError):
    """What the user asked for cannot be done as asked; every problem found is listed.

    Args:
        problems: sentences, or lists of sentences; each says what is wrong and what to do.
    """

    exit_code = 2

    def __init__(self, *problems: str | Iterable[str]):
        lists = ((entry,) if isinstance(entry, str) else entry for entry in problems)
        self.problems: tuple[str, ...] = tuple(chain.from_iterable(lists))
        super().__init__(*self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class BusyError(InputError):
    """Another process is at work on the run, which is no end of it."""

    exit_code = 3


class FaultError(StudioError):
    """The request was sound but the machine failed it: a damaged file, a full disk, a non-finite value."""
