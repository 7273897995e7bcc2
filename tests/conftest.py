"""Fixtures that every folder of tests may use."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Nothing in the default tests may reach a hub; set before huggingface_hub is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

# Tests that run side by side share the cores evenly, and so do the processes they start: two programs whose
# threads fill the same cores take longer than one after the other. Set before torch counts the cores.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    _number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    _cores = sorted(os.sched_getaffinity(0))
    _mine = _cores[_number :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]
    os.sched_setaffinity(0, _mine or _cores)


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def chromium() -> str | None:
    """Path of an installed Chromium for playwright's `executable_path`; None means playwright's own."""
    names = (os.environ.get("RSM_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


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
