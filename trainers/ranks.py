"""Several processes on one run, as ``accelerate launch`` starts them: who this one is, and what they tell.

The first process leads: it owns the run folder, the clock and the stop request, and gives orders; the others
(``trainers.follower``) obey. Every message is the same operation, in which each process gives an object and
gets all of them. So a process that fails halfway gives its failure wherever the others are next, all of them
leave the rollout together, and nobody waits for a message that never comes. Only gradients travel otherwise:
summed once an update, on the devices.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from trainers.core.share import Share
from trainers.errors import FaultError, InputError, StudioError
from trainers.failures import MEMORY, explain, out_of_memory
from trainers.interruption import OutOfTime, StopRequested
from trainers.launch import launched

# The others wait as long as the first one draws its comparison; a process that dies is noticed at once.
_PATIENCE = timedelta(days=7)
_GONE = (
    "Another process of this run ended without a word: it was killed, often because memory ran out, or its "
    "machine went down. Resume the run; what was saved is intact."
)
_MET = (StudioError, MemoryError, StopRequested, OutOfTime)  # what ``exchange`` tells of other processes


class PeerGone(FaultError):
    """Another process does not answer any more."""


class Ranks:
    """One process among those at work on a run; by default the only one.

    Attributes:
        rank: Number of this process, from 0; 0 leads.
        count: How many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1, group: Any = None):
        """Name this process; ``join`` makes one of several."""
        self.rank = rank
        self.count = count
        self._group = group
        self._told = False
        self._gone = False

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.count == 1

    @property
    def share(self) -> Share:
        """The part of every batch that is this process's."""
        return Share(self.rank, self.count)

    def check_sharing(self, prompts: int) -> None:
        """Refuse a rollout of so many prompts when it cannot be dealt out evenly.

        Raises:
            InputError: The number of prompts is no multiple of the number of processes.
        """
        if prompts % self.count:
            raise InputError(
                f"'prompts_per_update' is {prompts}, which {self.count} processes cannot share evenly; "
                f"choose a multiple of {self.count}, or another number of processes."
            )

    def exchange(self, value: Any = None) -> list:
        """Give an object and return everybody's, in the order of the processes.

        Raises:
            FaultError, MemoryError, StopRequested, OutOfTime: Another process met that instead.
            PeerGone: Another process has died.
        """
        if self.alone:
            return [value]
        told = self._gather((value, None))
        failures = [(rank, error) for rank, (_, error) in enumerate(told) if error is not None]
        if failures:
            self._told = True
            raise self._of_others(failures)
        return [given for given, _ in told]

    def gather(self, values: Tensor) -> Tensor:
        """Return everybody's rows (B, …) as one tensor on this process's device."""
        if self.alone:
            return values
        parts = self.exchange(values.detach().cpu())
        return torch.cat(parts).to(values.device)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Run a body that all processes run; a failure of one ends it for all."""
        self._told = False
        try:
            yield
        except PeerGone:
            raise
        except Exception as error:
            if not self.alone and not self._told:
                self._told = True
                with contextlib.suppress(PeerGone):
                    self._gather((None, _portable(error)))
            raise

    @contextlib.contextmanager
    def confirming_stop(self) -> Iterator[None]:
        """Run a body of the first process that a stop request may end, if the others are there to be stopped.

        A launcher answers the death of one process with a SIGTERM to the others, which reads like a stop
        request and may come before the broken connection is met.

        Raises:
            PeerGone: A stop request ended the body, and another process has died.
        """
        try:
            yield
        except StopRequested:
            if self._gone:
                raise PeerGone(_GONE) from None
            try:
                self.order("confirm")  # nothing is to be done, only to be answered
            except PeerGone:
                raise
            except _MET:
                pass  # the stop came before it
            raise

    def order(self, name: str, payload: Any = None) -> None:
        """Say what is to be done next, if this process leads and the others are there.

        Errors as in ``exchange``.
        """
        if self.rank == 0 and not self._gone:
            self.exchange((name, payload))

    def orders(self) -> Iterator[tuple[str, Any]]:
        """Yield the first process's orders until it says ``end`` or is gone."""
        while True:
            try:
                name, payload = self.exchange()[0]
            except PeerGone:
                return
            except _MET:
                continue  # what somebody met after the last message of an order; the leader acts on it
            if name == "end":
                return
            yield name, payload

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every parameter's gradient by its sum over the processes.

        Raises:
            PeerGone: Another process has died.
        """
        if self.alone:
            return
        parameters = list(parameters)
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = self._sum(torch.cat([part.flatten() for part in parts]))
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def _gather(self, message: Any) -> list:
        found: list = [None] * self.count
        with self._answers():
            distributed.all_gather_object(found, message, group=self._group)
        return found

    def _sum(self, values: Tensor) -> Tensor:
        # Under a launcher for GPUs the usual group cannot carry tensors of a run that is told to use the CPU.
        group = self._group if values.device.type == "cpu" else None
        with self._answers():
            distributed.all_reduce(values, group=group)
        return values

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        """Turn a broken connection into ``PeerGone``."""
        try:
            yield
        except RuntimeError as error:
            self._gone = True
            raise PeerGone(_GONE) from error

    def _of_others(self, failures: list[tuple[int, Exception]]) -> Exception:
        """Return what to raise for failures of others: a fault before a lack of memory, time or a stop."""
        rank, error = min(failures, key=lambda failure: not isinstance(failure[1], FaultError))
        if isinstance(error, FaultError):
            return FaultError(f"Process {rank + 1} of {self.count}: {error}")
        return error


ALONE = Ranks()


def _portable(error: Exception) -> Exception:
    """Return an error that means the same to the other processes."""
    if isinstance(error, (StopRequested, OutOfTime)):
        return type(error)()
    if out_of_memory(error):
        return MemoryError(MEMORY)
    return FaultError(explain(error))


def join() -> Ranks:
    """Meet the other processes that the launcher started; ``ALONE`` when there are none."""
    rank, count = launched()
    if count == 1:
        return ALONE
    from accelerate import PartialState

    PartialState(cpu=_on_cpu())
    return Ranks(rank, count, distributed.new_group(backend="gloo", timeout=_PATIENCE))


def leave(ranks: Ranks) -> None:
    """Close the connections to the other processes."""
    if not ranks.alone and distributed.is_initialized():
        with contextlib.suppress(RuntimeError):
            distributed.destroy_process_group()


def _on_cpu() -> bool:
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return asked or not torch.cuda.is_available()
