"""Whose things go when there is too much, as plain data; and what one owner may keep and pin."""

import pytest

from rsm_app.jobs import cleaning
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.shares import Holding, Shares
from rsm_app.jobs.supervisor import Supervisor
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import small_config
from trainers.errors import InputError
from trainers.run_lock import try_lock, unlock

MB = 2**20


def things(owner, *sizes, removable=True, first=0):
    """Things of one owner, the oldest first."""
    return [
        Holding(f"{owner}{number}", owner, size, (number,), removable)
        for number, size in enumerate(sizes, first)
    ]


def gone(shares, *holdings):
    """Return the names of what goes, as a set: the order is an owner's own."""
    return {holding.id for holding in shares.excess([part for group in holdings for part in group])}


def test_whoever_uses_most_loses_their_own_oldest_first():
    found = Shares(size=10).excess([*things("ann", 1), *things("bob", *[1] * 20)])
    assert [holding.id for holding in found] == [f"bob{number}" for number in range(11)]


def test_nobody_within_an_equal_part_pays_for_what_another_one_keeps():
    junk = things("bob", *[1] * 24, removable=False)
    assert gone(Shares(size=10), junk, things("ann", 1)) == set()
    assert gone(Shares(size=10), junk, things("ann", 1), things("bob", 1, first=30)) == {"bob30"}


def test_between_two_who_have_too_much_the_larger_one_gives_first():
    holdings = [things("ann", *[1] * 6), things("bob", *[1] * 9), things("cyd", 1)]
    assert gone(Shares(size=15), *holdings) == {"bob0"}
    assert gone(Shares(size=10), *holdings) == {"ann0", "ann1", "bob0", "bob1", "bob2", "bob3"}


def test_an_owner_beyond_their_own_share_gives_though_there_is_room():
    shares = Shares(size=100, owner_size=3, owner_count=5)
    assert gone(shares, things("ann", *[1] * 4), things("bob", *[0.1] * 7)) == {"ann0", "bob0", "bob1"}


def test_what_is_nobody_s_stays_and_takes_from_what_others_may_have():
    shell = [Holding("shell", None, 8, (0,), removable=False)]
    assert gone(Shares(size=10), shell, things("ann", 1, 1, 1)) == {"ann0"}
    assert gone(Shares(size=5), shell, things("ann", 1, 1)) == {"ann0", "ann1"}


def test_without_limits_nothing_goes():
    assert gone(Shares(), things("ann", *[10**9] * 50)) == set()


# -- runs ----------------------------------------------------------------------------------------------


@pytest.fixture
def idle(store, monkeypatch):
    """A supervisor that starts nothing."""
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(store, Limits(free_mb=0))
    monkeypatch.setattr(supervisor, "tick", lambda: None)
    yield supervisor
    supervisor.close()


def runs_of(store, owner, count, first, megabytes=1, began=True, **job):
    """Ended runs of an owner."""
    made = []
    for number in range(first, first + count):
        run = finished_run(store, number)
        run.change_job(owner=owner, **job)
        (run.path / "weights").write_bytes(b"x" * (megabytes * MB))
        status = '{"state": "succeeded", "phase": "done", "started": %d, "heartbeat": %d}'
        run.folder.status_file.write_text(status % (number if began else 0, number + 1))
        made.append(run)
    return made


def sweep(supervisor, **limits):
    """Clean up within limits and return the ids of what is left."""
    with supervisor.store.lock():
        cleaning.enforce_quota(supervisor.store, supervisor.index, Limits(**limits))
    return {run.id for run in supervisor.store.runs()}


def test_runs_that_never_began_go_before_any_that_learned_something(idle, store):
    learned = runs_of(store, "ann", 3, first=1)
    withdrawn = runs_of(store, "ann", 4, first=10, began=False)
    assert sweep(idle, owner_kept=4) == {run.id for run in (*learned, withdrawn[3])}
    assert sweep(idle, owner_kept=2) == {run.id for run in learned[1:]}


def test_one_owner_s_many_runs_push_out_no_other_s(idle, store):
    (mine,) = runs_of(store, "ann", 1, first=0)
    runs_of(store, "bob", 12, first=10)
    left = sweep(idle, disk_mb=5)
    assert mine.id in left and len(left) < 6
    runs_of(store, "bob", 24, first=40, pinned=True)
    assert mine.id in sweep(idle, disk_mb=5), "pinned junk is no reason either"


def test_pins_are_counted_and_weighed(idle, store):
    idle.limits = Limits(free_mb=0, owner_pinned=2, owner_disk_mb=10)
    first, second, third = runs_of(store, "ann", 3, first=0)
    (large,) = runs_of(store, "bob", 1, first=10, megabytes=11)
    idle.pin(first.id)
    idle.pin(second.id)
    idle.pin(second.id)  # again is no third one
    with pytest.raises(InputError, match="pinned 2 runs, and one may pin 2"):
        idle.pin(third.id)
    with pytest.raises(InputError, match="would take 11 MB, more than the 10 MB"):
        idle.pin(large.id)
    idle.pin(first.id, False)
    assert idle.pin(third.id).job().pinned


def test_signing_in_or_out_gives_no_further_pins(idle, store):
    idle.limits = Limits(free_mb=0, owner_pinned=1)
    (named,) = runs_of(store, "ann", 1, first=0, address="10.0.0.1")
    (unnamed,) = runs_of(store, "10.0.0.1", 1, first=5)
    (other,) = runs_of(store, "bob", 1, first=9, address="10.0.0.1")
    idle.pin(named.id)
    with pytest.raises(InputError, match="Unpin one first"):
        idle.pin(unnamed.id)
    assert idle.pin(other.id).job().pinned, "another account at that address has its own"


def test_whoever_keeps_all_that_one_may_starts_and_brings_nothing_more(idle, store):
    idle.limits = Limits(free_mb=0, owner_disk_mb=3, owner_kept=10)
    kept = runs_of(store, "ann", 3, first=0, pinned=True)
    for more in (
        lambda: idle.submit(small_config(), owner="ann"),
        lambda: idle.adopt(lambda path: path.mkdir(), "ann"),
        lambda: idle.extend(kept[0].id, 60),
    ):
        with pytest.raises(InputError, match="take 3 MB, and one may have 3 MB here. Unpin or delete"):
            more()
    assert idle.submit(small_config(), owner="bob").status().state == "queued"
    idle.pin(kept[0].id, False)
    assert idle.submit(small_config(), owner="ann").status().state == "queued"


def test_without_limits_one_may_pin_and_keep_what_one_likes(idle, store):
    kept = runs_of(store, "ann", 30, first=0)
    for run in kept:
        idle.pin(run.id)
    assert idle.submit(small_config(), owner="ann") and sweep(idle) >= {run.id for run in kept}


def test_what_cannot_be_deleted_now_is_passed_over(idle, store):
    """A process is still in the folder of the oldest one."""
    oldest, next_one, newest = runs_of(store, "ann", 3, first=0)
    held = try_lock(oldest.path)
    try:
        assert sweep(idle, owner_kept=2) == {oldest.id, newest.id}
    finally:
        unlock(held)
