"""Fixtures that every folder of tests may use."""

import contextlib
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Nothing in the default tests may reach a hub; set before huggingface_hub is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

# Tests that run side by side share the cores evenly, and so do the processes they start: two programs whose
# threads fill the same cores take longer than one after the other. Set before torch counts the cores.
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
if "PYTEST_XDIST_WORKER" in os.environ and _CORES:
    _number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    _mine = _CORES[_number :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]
    os.sched_setaffinity(0, _mine or _CORES)


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def every_core():
    """A context in which started processes may run on every core, for those that fill none for long."""

    @contextlib.contextmanager
    def unbound():
        if not _CORES:
            yield
            return
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, _CORES)
        try:
            yield
        finally:
            os.sched_setaffinity(0, own)

    return unbound


@pytest.fixture
def restored_threads():
    """Give the number of threads back after a test that sets it."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread(restored_threads):
    """Run chunks one after the other, for toys that record the order of calls."""
    import torch

    torch.set_num_threads(1)
