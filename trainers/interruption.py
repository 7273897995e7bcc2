"""What may end a session early: a stop request, a second one in a hurry, or the end of its time.

A stop request is the run's ``stop`` file, a SIGTERM, or the first Ctrl-C in a shell. The engine asks
``check`` between two batches of every phase, so a stop acts within one batch. A stopped run still draws a
comparison, as much of it as fits into ``STOP_SECONDS``; a SIGTERM on top of a request (a hurry) leaves that
out.
"""

from __future__ import annotations

import contextlib
import math
import os
import time

from trainers.run_folder import RunFolder

STOP_SECONDS = 5.0
FINISHING_SECONDS = 4.0  # beside the drawing: saving, reloading, scoring
_SAVING_SECONDS = 1.0


class StopRequested(Exception):
    """Somebody asked the run to end; raised between two batches and caught by the session."""


class OutOfTime(Exception):
    """The session's own time is up; raised between two batches and caught by the session."""


class Interruption:
    """Says between two batches whether the work goes on.

    Attributes:
        finishing: Whether the comparison after training is being drawn, which a stop request shortens
            instead of ending it.
        loading: Whether what an earlier session learned is being loaded; a stop waits for that, since then
            there is something to compare.
        hurry: Whether even that is to be left out.
    """

    def __init__(self, folder: RunFolder, seconds: float | None = None):
        """Watch a run folder.

        Args:
            folder: The run, whose ``stop`` file counts.
            seconds: Time this session may take, from now on; None for no limit.
        """
        self._folder = folder
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds - _SAVING_SECONDS
        self._signalled = False
        self._noticed: float | None = None
        self.finishing = False
        self.loading = False
        self.hurry = False

    def on_sigterm(self, *_) -> None:
        """Take a SIGTERM as a stop request, or as a hurry when there already is one."""
        self.hurry = self.hurry or self._signalled or self._folder.stop_requested()
        self._signalled = True

    def on_sigint(self, *_) -> None:
        """Take the first Ctrl-C as a stop request and say so; the second one leaves.

        Raises:
            KeyboardInterrupt: It is the second one.
        """
        if self._signalled:
            self.hurry = True
            raise KeyboardInterrupt
        self.on_sigterm()
        # Not print: a signal may come while the interpreter is within a write to the same stream.
        with contextlib.suppress(OSError):
            os.write(
                2,
                b"\nStopping: what was learned is kept and compared. Press Ctrl-C again to leave at once.\n",
            )

    @property
    def stop(self) -> bool:
        """Whether somebody asked the run to stop."""
        asked = self._signalled or self._folder.stop_requested()
        if asked and self._noticed is None:
            self._noticed = time.monotonic()
        return asked

    @property
    def seconds_left(self) -> float:
        """Seconds until the session's own time is up; infinite without a limit."""
        return self._deadline - time.monotonic()

    def check(self) -> None:
        """Let the work go on, or end it.

        Raises:
            StopRequested: A stop was requested and the phase neither finishes a stop nor loads; or a hurry.
            OutOfTime: The session's own time is up.
        """
        if self.hurry or (not self.finishing and not self.loading and self.stop):
            raise StopRequested
        if self.seconds_left <= 0:
            raise OutOfTime

    def check_wait(self, seconds: float) -> None:
        """Let a wait for a server go on, or end it: where a stop must wait, ``STOP_SECONDS`` are the most.

        Args:
            seconds: How long it has taken so far.

        Raises:
            StopRequested, OutOfTime: As ``check`` does.
        """
        self.check()
        if self.stop and seconds > STOP_SECONDS:
            raise StopRequested

    def enough(self) -> bool:
        """Whether a stopped run's comparison has had its ``STOP_SECONDS``."""
        return self.stop and time.monotonic() - (self._noticed or 0.0) > STOP_SECONDS
