"""Inference on every core: chunks of a batch run side by side, one core each.

Small networks leave cores waiting inside each operation, the more so when other programs want a core too;
whole chunks on one core each do not. The result
does not depend on the number of cores, because a chunk is computed the same way wherever it runs. On a GPU,
or with one thread, chunks simply run one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Chunk = TypeVar("Chunk")
Middle = TypeVar("Middle")
Result = TypeVar("Result")


def iterate_chunks(
    function: Callable[[Chunk], Result], chunks: Sequence[Chunk], device: torch.device
) -> Iterator[Result]:
    """Yield ``function`` of every chunk, in order, without gradient, as soon as each is there.

    Args:
        function: Must not depend on the order in which chunks run.
        chunks: What to compute on.
        device: Where the tensors live.
    """

    @torch.no_grad()
    def run(chunk: Chunk) -> Result:
        return function(chunk)

    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(chunks) == 1:
        yield from map(run, chunks)
        return
    try:
        yield from _pool(threads).map(run, chunks)
    finally:
        torch.set_num_threads(threads)


def map_chunks(
    function: Callable[[Chunk], Result], chunks: Sequence[Chunk], device: torch.device
) -> list[Result]:
    """Return the results of ``iterate_chunks`` as a list."""
    return list(iterate_chunks(function, chunks, device))


def overlapped(
    first: Callable[[Chunk], Middle], second: Callable[[Chunk, Middle], Result], chunks: Sequence[Chunk]
) -> list[Result]:
    """Return ``second(chunk, first(chunk))`` of every chunk, in order, without gradient.

    While the second works on a chunk in a thread of its own, the first goes on with the next one: on a GPU
    pictures are decoded while those before them are scored, which is often a processor's or a server's work.
    """
    found: list[Result] = []
    without_gradient = torch.no_grad()(second)
    with ThreadPoolExecutor(1, "overlapped") as helper:
        waiting: Future[Result] | None = None
        for chunk in chunks:
            with torch.no_grad():
                middle = first(chunk)
            if waiting is not None:
                found.append(waiting.result())
            waiting = helper.submit(without_gradient, chunk, middle)
        return [*found, waiting.result()] if waiting is not None else found


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "inference", initializer=work_alone)


def work_alone() -> None:
    """Keep the operations of the calling thread on one core, whatever other threads set later.

    The number is each thread's own, but a thread takes the process's number at its first operation. Asking
    for it takes that step now: a thread of the pool that had no chunk yet would otherwise wake with what the
    main thread set since, and its pictures would differ in their last bits.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)
