"""A stop acts between two batches of any phase; what it cuts off is undone and repeated exactly."""

import pytest

from tests.e2e.shell import read
from tests.faults import watched_reward
from tests.faults.sessions import ADAPTER, same, session, tiny_config
from trainers import interruption
from trainers.checkpoint import load_latest
from trainers.first_checks import TRIED
from trainers.interruption import Interruption
from trainers.run_folder import RunFolder

ESTIMATORS = ("rsm_zeroth_order_flow", "rsm_first_order_flow")


@pytest.fixture(scope="module", autouse=True)
def watched():
    with watched_reward.watched():
        yield


@pytest.fixture(autouse=True)
def ignored():
    watched_reward.ignore()


def config_of(estimator=ESTIMATORS[0]):
    return tiny_config(estimator, "watched")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs by method, made when first asked for."""
    made = {}

    def make(estimator=ESTIMATORS[0]):
        if estimator not in made:
            watched_reward.ignore()
            made[estimator] = tmp_path_factory.mktemp("whole") / "run"
            assert session(made[estimator], config_of(estimator)).run().state == "succeeded"
        return made[estimator]

    return make


def stop_when(folder, phase, words=""):
    """Return a listener that asks for a stop at the first status of a phase that says some words."""

    def listen(status):
        if status.phase == phase and words in status.message and status.state == "running":
            folder.request_stop("the test wants it")

    return listen


def test_a_stop_before_anything_is_loaded(whole, tmp_path):
    run = tmp_path / "run"
    folder = RunFolder(run)
    status = session(run, config_of(), stop_when(folder, "load")).run()
    assert status.state == "stopped" and "nothing was learned" in status.message
    assert not folder.samples.exists() and not folder.stop_requested()
    assert session(run).run().state == "succeeded"
    same(run, whole())


def test_a_stop_while_the_baseline_is_drawn_keeps_the_pictures_drawn_so_far(whole, tmp_path):
    run = tmp_path / "run"
    folder = RunFolder(run)
    status = session(run, config_of(), stop_when(folder, "baseline", "4 of 8")).run()
    assert status.state == folder.status().state == "stopped" and status.stop_reason == "the test wants it"
    drawn = sorted((folder.samples / "before").glob("*.png"))
    assert len(drawn) == 4 and not folder.read_metrics()
    written = [path.stat().st_mtime_ns for path in drawn]
    assert session(run).run().state == "succeeded"
    assert [path.stat().st_mtime_ns for path in drawn] == written, "no picture is drawn twice"
    same(run, whole())


def test_a_baseline_cut_off_after_its_last_picture_still_gives_the_comparison_its_time(whole, tmp_path):
    def cut(status):
        if "8 of 8" in status.message:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        session(run, config_of(), cut).run()
    assert len(list((run / "samples" / "before").glob("*.png"))) == 8
    assert session(run).run().state == "succeeded"
    clock = read(run / "samples" / "before.json")
    assert clock["drawn"] == 8 and clock["seconds"] > clock["drawing_seconds"] > 0
    assert load_latest(RunFolder(run)).progress.baseline_seconds == clock["seconds"]
    same(run, whole())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_stop_inside_a_rollout_undoes_it(estimator, whole, tmp_path):
    reference, run = whole(estimator), tmp_path / "run"
    folder = RunFolder(run)
    per_rollout = folder_images(reference)
    begun = TRIED + 8 + per_rollout + 1
    watched_reward.watch(begun, folder.request_stop)
    status = session(run, config_of(estimator)).run()
    assert watched_reward.Watched.pictures > begun, "the second rollout had begun"
    assert status.state == "stopped" and status.updates == len(folder.read_metrics()) == 1
    assert load_latest(folder).progress.updates == 1 == folder.read_report()["updates"]
    assert (run / ADAPTER).exists()
    watched_reward.ignore()
    assert session(run).run().state == "succeeded"
    same(run, reference)


def folder_images(path) -> int:
    """Return the pictures of a run's first rollout."""
    return RunFolder(path).read_metrics()[0]["images_sampled"]


def test_a_stop_in_the_comparison_shortens_it_to_whole_prompts(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(interruption, "STOP_SECONDS", 0.0)
    run = tmp_path / "run"
    folder = RunFolder(run)
    status = session(run, config_of(), stop_when(folder, "evaluate", "4 of 8")).run()
    assert status.state == "stopped" and status.updates == 2
    report = folder.read_report()
    assert report["paired"]["n"] == len(folder.read_pairs()) == 4
    assert session(run).run().state == "succeeded"
    same(run, whole())


def test_a_stop_in_a_hurry_leaves_the_comparison_out(whole, tmp_path):
    run = tmp_path / "run"
    folder = RunFolder(run)
    hurried = Interruption(folder)

    def listen(status):
        if status.phase == "evaluate" and not hurried.hurry:
            hurried.on_sigterm()
            hurried.on_sigterm()

    status = session(run, config_of(), listen, hurried).run()
    assert status.state == "stopped" and "what was learned is saved" in status.message
    assert (run / ADAPTER).read_bytes() == (whole() / ADAPTER).read_bytes()
    assert folder.read_report() is None and not folder.read_pairs()
    assert session(run).run().state == "succeeded"
    same(run, whole())
