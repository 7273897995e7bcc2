"""A reward server that fails while a run works: the run ends with a sentence and can be resumed as it was."""

import json
import shutil

import pytest

from tests.e2e.shell import lines, read
from tests.faults.sessions import same, session, tiny_config
from tests.rewards.servers import Reply, pickled, serving
from trainers.errors import FaultError
from trainers.interruption import Interruption, StopRequested
from trainers.reevaluate import reevaluate
from trainers.run_folder import RunFolder


class Moody:
    """Answers well, except from one request on until it is mended."""

    def __init__(self):
        self.seen, self.fails_from, self.failure = 0, None, Reply(b"", 500)

    def __call__(self, body, headers):
        self.seen += 1
        if self.fails_from is not None and self.seen >= self.fails_from:
            return self.failure
        return pickled(body, headers)

    def fail_from(self, request, failure):
        self.seen, self.fails_from, self.failure = 0, request, failure


@pytest.fixture(scope="module")
def server():
    moody = Moody()
    with pytest.MonkeyPatch.context() as patch, serving(moody) as running:
        patch.setenv("RSM_ALLOW_OWN_CODE", "1")  # importing the app, as other tests do, forbids it
        running.moody = moody
        yield running


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    """A run during which the server works, and how many requests it made."""
    path = tmp_path_factory.mktemp("runs") / "undisturbed"
    server.moody.fail_from(None, None)
    session(path, config(server)).run()
    return path, server.moody.seen


def config(server):
    return tiny_config(
        reward="server",
        others="brightness",
        server_url=server.address,
        endpoint_retries=0,
        endpoint_timeout=20,
    )


@pytest.mark.parametrize(
    ("share", "failure", "words"),
    [
        (0.0, Reply(b"", 500), "status 500"),
        (0.5, Reply(b"nonsense"), "no pickle"),
        (1.0, Reply(b"", 502), "status 502"),
    ],
    ids=["baseline", "training", "evaluation"],
)
def test_a_run_ends_with_a_sentence_and_is_resumed_as_if_nothing_had_been(
    server, undisturbed, tmp_path, share, failure, words
):
    whole, requests = undisturbed
    server.moody.fail_from(max(2, round(share * requests)), failure)  # the first one tries the reward
    path = tmp_path / "run"
    with pytest.raises(FaultError, match=words):
        session(path, config(server)).run()
    status = read(path / "status.json")
    assert status["state"] == "failed" and words in status["error"] and "'server'" in status["error"]
    assert list((path / "samples" / "before").glob("*.png")), "the pictures drawn so far stay"
    if share:
        assert RunFolder(path).adapter.is_dir()
    if share == 1.0:
        assert len(lines(path / "metrics.jsonl")) == 2
    server.moody.fail_from(None, None)
    assert session(path).run().state == "succeeded"
    same(whole, path)


def test_the_adapter_of_a_failed_run_can_be_evaluated_by_another_reward(server, undisturbed, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(undisturbed[0], path)
    settings = json.loads((path / "config.json").read_text())
    assert "pass" not in settings and settings["server_url"] == server.address
    server.moody.fail_from(1, Reply(b"", 500))
    found = reevaluate(path, None, "brightness", 2)
    report = read(path / "report.json")
    assert found["paired"]["n"] == report["paired"]["n"]
    assert found["after"]["reward"]["mean"] == pytest.approx(
        report["after"]["others"]["brightness"]["mean"], abs=1e-6
    )


def test_after_ctrl_c_no_thread_waits_for_an_endpoint_any_more(tmp_path):
    interruption = Interruption(RunFolder(tmp_path / "run"))

    def listen(status):
        if status.state == "running":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session(tmp_path / "run", tiny_config(), listen, interruption).run()
    with pytest.raises(StopRequested):
        interruption.check_wait(0.0)
