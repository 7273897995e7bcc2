"""The processes of a run beside the first: they load what it loads and do what it says, and write nothing.

An order is the name of a verb of ``Trainer`` (``advance``, ``restore``, ``halve_micro_batch``); the first
process's trainer gives it before doing the same. A failure is told to all, and the next order awaited.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from trainers.errors import StudioError
from trainers.failures import last_traceback, out_of_memory
from trainers.interruption import Interruption, OutOfTime, StopRequested
from trainers.loading import load_trainer
from trainers.loop import Trainer
from trainers.machine import choose_device, quiet_libraries, use_threads
from trainers.ranks import Ranks, join, leave
from trainers.rewards import load_reward
from trainers.run_folder import RunFolder
from trainers.terminal import report

VERBS = ("advance", "restore", "halve_micro_batch")


def follow() -> int:
    """Work for the first process until it ends; return the process's exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the first process ends this one, after saving
    ranks = join()
    trainer = None
    try:
        for name, payload in ranks.orders():
            trainer = _obey(trainer, name, payload, ranks)
    finally:
        leave(ranks)
    return 0


def _obey(trainer: Trainer | None, name: str, payload: Any, ranks: Ranks) -> Trainer | None:
    """Carry out an order; whatever goes wrong is the others' to know and the first process's to act on."""
    try:
        with ranks.together():
            if name == "load":
                return _load(*payload, ranks)
            if trainer is not None and name in VERBS:
                getattr(trainer, name)(*(() if payload is None else (payload,)))
    except (StudioError, StopRequested, OutOfTime):
        pass
    except Exception as error:
        if not out_of_memory(error):
            report(last_traceback())
    return trainer


def _load(config, path: str, ranks: Ranks) -> Trainer:
    device = choose_device(config)
    quiet_libraries()
    use_threads(config)
    # The stop file is looked at here too, so that a stop acts within one batch of every process.
    interruption = Interruption(RunFolder(Path(path)))
    reward = load_reward(config.reward, device, config)
    reward.interrupt_with(interruption.check_wait)
    return load_trainer(config, reward, device, ranks, interruption.check)
