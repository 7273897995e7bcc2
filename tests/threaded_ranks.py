"""Several processes of a run played by threads of one: the messages are real, only their way is short."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from trainers.ranks import Ranks


class _Table:
    """Where threads lay down what they give until all have done so."""

    def __init__(self, count):
        self.places = [None] * count
        self.barrier = threading.Barrier(count, timeout=60)


class ThreadRanks(Ranks):
    """A process that meets the others at a table."""

    def __init__(self, rank, count, table):
        super().__init__(rank, count)
        self._table = table

    def _gather(self, message):
        self._table.places[self.rank] = message
        self._table.barrier.wait()
        found = list(self._table.places)
        self._table.barrier.wait()
        return found

    def _sum(self, values):
        return torch.stack(self._gather(values)).sum(0)


def threads_of(count):
    """Return the ranks of ``count`` threads."""
    table = _Table(count)
    return [ThreadRanks(rank, count, table) for rank in range(count)]


def side_by_side(calls):
    """Run calls in a thread each; return their results or the exceptions they ended with."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        return [future.exception() or future.result() for future in futures]
