"""Inference on every core: chunks of a batch run side by side, one core each.

Small networks leave cores waiting inside each operation, the more so when other programs want a core too;
whole chunks on one core each do not. The result
does not depend on the number of cores, because a chunk is computed the same way wherever it runs. On a GPU,
or with one thread, chunks simply run one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Chunk = TypeVar("Chunk")
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


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    # The number of threads inside an operation is a setting of each calling thread.
    return ThreadPoolExecutor(threads, "inference", initializer=torch.set_num_threads, initargs=(1,))
