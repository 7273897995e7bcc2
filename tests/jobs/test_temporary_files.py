"""Uploads and exports: whose they are, how much of them stays and for how long."""

import pytest

from rsm_app.jobs import temporary_files
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.jobs.temporary_files import PRIVATE_SECONDS, SHARED_SECONDS, TemporaryFiles
from tests.faults.many_runs import finished_run

MB = 2**20


@pytest.fixture
def put(tmp_path):
    """Make a file in a folder of its own and return it."""

    def make(name, megabytes=1.0):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "file").write_bytes(b"x" * int(megabytes * MB))
        return folder / "file"

    return make


def there(*files):
    return [file.exists() for file in files]


def test_an_owner_s_uploads_beyond_their_share_take_their_own_oldest(put):
    files = TemporaryFiles(Limits(owner_files_mb=3, files_mb=100))
    mine = put("ann")
    files.uploaded("ann", [str(mine)])
    sent = [put(f"bob{number}") for number in range(6)]
    for file in sent:
        files.uploaded("bob", [str(file)])
    assert there(mine, *sent) == [True] + [False] * 3 + [True] * 3


def test_very_many_small_ones_take_their_own_oldest_too(put, monkeypatch):
    monkeypatch.setattr(temporary_files, "MOST_FILES", 5)
    files = TemporaryFiles(Limits(owner_files_mb=3))
    mine, *sent = [put(f"{number}", 0.001) for number in range(20)]
    files.uploaded("ann", [str(mine)])
    files.uploaded("bob", map(str, sent))
    assert there(mine) == [True] and there(*sent) == [False] * 14 + [True] * 5


def test_all_together_beyond_their_share_take_from_whoever_has_most(put):
    files = TemporaryFiles(Limits(files_mb=5))
    mine = [put(f"ann{number}") for number in range(2)]
    for file in mine:
        files.uploaded("ann", [str(file)])
    for number in range(9):
        files.uploaded("bob", [str(put(f"bob{number}"))])
    assert there(*mine) == [True, True]


def test_the_same_file_from_two_is_one_and_the_first_one_s(put):
    files = TemporaryFiles(Limits(owner_files_mb=2))
    shared = put("shared")
    files.uploaded("ann", [str(shared)])
    files.uploaded("bob", [str(shared)])
    for number in range(5):
        files.uploaded("bob", [str(put(f"bob{number}"))])
    assert shared.exists()


def test_an_export_takes_the_place_of_the_last_one_of_its_kind(put):
    files = TemporaryFiles(Limits())
    first, report, second, other = (put(name) for name in ("a", "b", "c", "d"))
    for file, key in ((first, "run/zip"), (report, "run/report"), (second, "run/zip"), (other, "else/zip")):
        assert files.keep("ann", file.parent, key)
    assert there(first, report, second, other) == [False, True, True, True]
    files.forget_exports("run")
    assert there(report, second, other) == [False, False, True]


def test_a_file_larger_than_the_share_is_not_kept_and_said_so(put):
    files = TemporaryFiles(Limits(owner_files_mb=2))
    small, large = put("small"), put("large", 3)
    assert files.keep("ann", small.parent, "a/zip") and not files.keep("ann", large.parent, "b/zip")
    assert not large.exists()


@pytest.mark.parametrize(
    ("limits", "seconds"), [(Limits(files_mb=100), SHARED_SECONDS), (Limits(), PRIVATE_SECONDS)]
)
def test_files_end_after_a_while_and_one_that_comes_again_begins_anew(put, monkeypatch, limits, seconds):
    files, now = TemporaryFiles(limits), [1000.0]
    monkeypatch.setattr(temporary_files.time, "time", lambda: now[0])
    old, again = put("old"), put("again")
    files.uploaded("ann", [str(old), str(again)])
    now[0] += seconds - 1
    files.sweep()
    assert there(old, again) == [True, True]
    files.uploaded("ann", [str(again)])
    now[0] += 2
    files.sweep()
    assert there(old, again) == [False, True]


def test_without_limits_everything_stays_for_a_day(put):
    files = TemporaryFiles(Limits())
    sent = [put(f"file{number}", 0.1) for number in range(50)]
    files.uploaded("ann", map(str, sent))
    files.sweep()
    assert all(there(*sent))


def test_exports_go_with_their_run(store, put, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(store, Limits(free_mb=0, owner_kept=1))
    deleted, cleaned, kept = (finished_run(store, number) for number in range(3))
    exports = []
    for run in (deleted, cleaned, kept):
        run.change_job(owner="ann")
        exports.append(put(run.id))
        supervisor.files.keep("ann", exports[-1].parent, f"{run.id}/zip")
    supervisor.delete(deleted.id)
    supervisor.tick()
    assert there(*exports) == [False, False, True]
    supervisor.close()
