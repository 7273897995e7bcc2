"""A worker's words about its run: the status file, the log, and whoever listens in this process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import psutil

from trainers.errors import FaultError
from trainers.processes import process_identity
from trainers.run_folder import HEARTBEAT_SECONDS, RunFolder, RunStatus, append_log

Listener = Callable[[RunStatus], None]


class StatusWriter:
    """Writes what this process does on a run.

    Attributes:
        status: As last said.
    """

    def __init__(self, folder: RunFolder, listener: Listener | None = None):
        """Go on from what earlier sessions said; nothing is written yet.

        Args:
            folder: The run.
            listener: Called with every status.
        """
        self._folder = folder
        self._listener = listener
        self._written = -HEARTBEAT_SECONDS
        process, earlier = psutil.Process(), folder.status()
        self.status = RunStatus(
            state="running",
            pid=process.pid,
            pid_started=process.create_time(),
            pid_identity=process_identity(process.pid),
            started=earlier.started or process.create_time(),
            updates=earlier.updates,
            images_sampled=earlier.images_sampled,
            message="Loading the model and the rewards.",
        )

    def update(self, **changes) -> None:
        """Change the status; writes the file at most once a second unless state or phase changes.

        Raises:
            FaultError: The run folder cannot be written.
        """
        important = any(key in changes for key in ("state", "phase"))
        self.status = replace(self.status, **changes)
        if important:
            self.log(
                f"{self.status.state} · {self.status.phase} · {self.status.error or self.status.message}"
            )
        if important or time.monotonic() - self._written >= HEARTBEAT_SECONDS:
            self._written = time.monotonic()
            self.status = replace(self.status, heartbeat=time.time())
            self._folder.write_status(self.status)
        if self._listener:
            self._listener(self.status)

    def tell(self, text: str) -> None:
        """Say what is being done; errors as in ``update``."""
        self.update(message=text)

    def fail(self, sentence: str) -> None:
        """Say that the run failed and why, as far as the disk has room for it."""
        with contextlib.suppress(FaultError):
            self.update(state="failed", error=sentence, eta_seconds=None)

    def log(self, text: str) -> None:
        """Append a dated line to the run's log."""
        append_log(self._folder.log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
