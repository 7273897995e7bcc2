"""What visitors send is repeated in the log as text: no character of theirs is a command to a terminal.

An error's own words repeat it, too, such as the name of a file that a forged request asks for.
"""

from __future__ import annotations

import logging
import traceback
from types import SimpleNamespace

from gradio import queueing, route_utils, routes

from trainers.terminal import printable, report

_MODULES = (queueing, route_utils, routes)  # those that print an exception themselves


class _Record(logging.LogRecord):
    """A record of the log without control characters, in its exception as well."""

    def __init__(self, *values: object, **more: object):
        super().__init__(*values, **more)
        if isinstance(self.exc_info, tuple) and self.exc_info[0]:
            text = "".join(traceback.format_exception(*self.exc_info))
            self.exc_text = printable(text.rstrip("\n"))  # a formatter takes it as it is

    def getMessage(self) -> str:  # noqa: N802 (the library's name)
        return printable(super().getMessage())


def write_plainly() -> None:
    """Let the log of this process, and what Gradio prints beside it, hold text only."""
    logging.setLogRecordFactory(_Record)
    for module in _MODULES:
        module.traceback = SimpleNamespace(**vars(traceback) | {"print_exc": _print_exc})


def _print_exc(*_: object, **_more: object) -> None:
    report(traceback.format_exc().rstrip("\n"))
