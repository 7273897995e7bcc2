"""Text for a terminal, a file or a pipe: what its encoding lacks is replaced, and nothing in it is a command.

A run may hold a stranger's text (prompts, settings, error sentences). Control characters in it could move the
cursor, rename the window or hide a line, so they never reach the screen. Imports no torch.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys

_REPLACEMENT = "\ufffd"
# Controls but tab and line feed (C1 holds the one-byte CSI), line and paragraph separators, embeddings,
# overrides and isolates of the bidirectional algorithm, and halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def prepare_output() -> None:
    """Let standard output and error replace what their encoding lacks; call once, at a program's entry.

    ISO-8859 locales, Windows' code pages for redirected output and ``PYTHONIOENCODING`` know neither arrows
    nor a multiplication sign, and a file's name may be no text at all. Where a stream was closed by whoever
    started the program, what is written to it goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (open to the end)
        elif hasattr(stream, "reconfigure"):  # what a notebook or a test puts there may not have it
            stream.reconfigure(errors="replace")


def printable(text: object) -> str:
    """Return text without the characters that a terminal would obey instead of showing."""
    return _UNSAFE.sub(_REPLACEMENT, str(text).replace("\r\n", "\n"))


def say(text: object, end: str = "\n") -> None:
    """Print text to standard output, without control characters."""
    print(printable(text), end=end)


def report(text: object) -> None:
    """Print text to standard error at once, without control characters.

    Nobody may be reading: a pipe whose reader has left is no reason to end what is at work.
    """
    with contextlib.suppress(OSError, ValueError):  # the latter: the stream was closed meanwhile
        print(printable(text), file=sys.stderr, flush=True)
