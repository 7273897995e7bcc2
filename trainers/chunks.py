"""Training in calls with a deadline: a worker's own session, cut into chunks that continue each other.

For places that lend a device for a minute at a time. Only what a run folder holds passes from one chunk to
the next, so N chunks and one uninterrupted run give the same adapter, bit for bit, when ``max_updates`` ends
both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from trainers.errors import InputError
from trainers.interruption import Interruption
from trainers.lending import lent_device
from trainers.opening import existing, reopen
from trainers.run_folder import RunFolder, RunStatus
from trainers.run_lock import hold
from trainers.session import Listener, Session


def train_chunk(
    run: str | os.PathLike,
    max_seconds: float,
    listener: Listener | None = None,
    limits: Mapping[str, float] | None = None,
) -> RunStatus:
    """Work on a run for a limited time.

    Args:
        run: A run folder, as ``trainers.opening.start`` or an earlier chunk left it.
        max_seconds: Wall-clock seconds until the call returns; loading is part of every chunk.
        listener: Hears every status.
        limits: New values of ``budget_seconds`` and ``max_updates``, as in ``opening.reopen``.

    Returns:
        The status at the end: ``interrupted`` when another chunk is to follow, else ``succeeded`` or
        ``stopped``.

    Raises:
        InputError: There is nothing to do in this folder, or the time is too short to get anywhere.
        FaultError: The run failed; its status says why.

    A stop request is obeyed by the next chunk when it comes between two of them.
    """
    folder = existing(run)
    interruption = Interruption(folder, max_seconds)
    with hold(folder.path):
        # A stop that was asked for between two chunks is older than the process that works on the next one.
        folder, config = reopen(folder.path, limits, keep_stop=True)
        before = reached(folder)
        interruption.loading = before[0] > 0
        with lent_device():
            status = Session(folder, config, listener, interruption, age=0.0).run()
    if status.state == "interrupted" and reached(folder) == before:
        raise InputError(
            f"{max_seconds:g} seconds are too few: loading the model and one update or one batch of pictures "
            "take longer. Give each chunk more time."
        )
    return status


def reached(folder: RunFolder) -> tuple[int, ...]:
    """Return what only grows while a run gets on: checkpointed updates and pictures of each side."""
    newest = max((int(path.stem) for path in folder.checkpoints.glob("*.safetensors")), default=0)
    sides = (len(list((folder.samples / side).glob("*.png"))) for side in ("before", "after"))
    return (newest, *sides)
