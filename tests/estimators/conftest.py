import pytest


@pytest.fixture(autouse=True)
def in_order(one_thread):
    """Chunks are scored in order, which the recording toys rely on."""
