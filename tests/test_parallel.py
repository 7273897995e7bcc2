"""Chunks on every core: each on one core alone, whatever other threads do."""

import threading

import torch

from trainers import parallel
from trainers.parallel import map_chunks, work_alone

CPU = torch.device("cpu")


def test_a_thread_without_work_yet_still_computes_on_one_core_later(restored_threads):
    ready, go, found = threading.Event(), threading.Event(), []

    def late():
        work_alone()
        ready.set()
        go.wait()
        torch.randn(4, 64, 32, 32).relu()  # a thread's first operation
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=late)
    thread.start()
    ready.wait()
    torch.set_num_threads(2)
    go.set()
    thread.join()
    assert found == [1]


def test_chunks_keep_their_order_their_core_and_the_caller_s_threads(restored_threads):
    parallel._pool.cache_clear()
    torch.set_num_threads(2)
    for _ in range(20):
        found = map_chunks(
            lambda n: (n, torch.ones(n, 1000).sum().item(), torch.get_num_threads()), [1, 2], CPU
        )
        assert found == [(1, 1000.0, 1), (2, 2000.0, 1)]
        assert torch.get_num_threads() == 2
