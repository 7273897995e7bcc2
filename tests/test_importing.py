"""The collector rests while large libraries are imported, and no longer."""

import gc

import pytest

from trainers.importing import uncollected


@pytest.fixture(autouse=True)
def collected_afterwards():
    yield
    gc.unfreeze()
    gc.enable()


def test_the_collector_rests_within_and_goes_on_afterwards():
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_was_imported_is_not_looked_at_again():
    before = gc.get_freeze_count()
    with uncollected():
        made = [[] for _ in range(1000)]
    assert gc.get_freeze_count() >= before + len(made)


def test_an_import_that_fails_leaves_the_collector_on():
    with pytest.raises(ModuleNotFoundError), uncollected():
        raise ModuleNotFoundError("no such library")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()
