"""A push does what was looked at and nothing else, and leaves alone what others put into the repository."""

import pytest

from rsm_app.hub.bundle import bundle
from rsm_app.hub.problems import HubProblem
from rsm_app.hub.push_status import read_push
from rsm_app.hub.target import look, stamp
from tests.e2e.shell import lines
from tests.hub.conftest import REPO
from trainers.run_folder import write_lines

COMMIT = "POST /api/models/.*/commit"


def test_files_of_others_stay(hub, run, push):
    push()
    repo = hub.store.repos[REPO]
    others = dict.fromkeys(("LICENSE", "images/logo.png", "images/01-after.png.txt"), hub.store.keep(b"mine"))
    hub.store.commit(repo, repo["commits"][-1]["files"] | others, "by hand")
    write_lines(run / "samples" / "pairs.jsonl", lines(run / "samples" / "pairs.jsonl")[:22])
    push()
    assert all(hub.files(REPO)[name] == b"mine" for name in others)
    assert "images/12-after.png" not in hub.files(REPO)


def approved(hub, run, writer):
    return stamp(look(REPO, writer, hub.url), bundle(run, REPO))


def test_only_what_was_looked_at_is_done(hub, run, push, writer):
    """A repository that somebody changes, and a run that changes, between the look and the push."""
    push(approved=approved(hub, run, writer))
    pairs, repo = lines(run / "samples" / "pairs.jsonl"), hub.store.repos[REPO]
    write_lines(run / "samples" / "pairs.jsonl", pairs[:22])
    seen = approved(hub, run, writer)
    hub.store.commit(repo, repo["commits"][-1]["files"] | {"README.md": hub.store.keep(b"mine")}, "by hand")
    for _ in range(2):
        with pytest.raises(HubProblem, match="has changed since it was checked") as caught:
            push(approved=seen)
        assert caught.value.kind == "moved" and read_push(run).outdated and read_push(run).can_retry
        assert hub.files(REPO)["README.md"] == b"mine" and "images/12-after.png" in hub.files(REPO)
        seen = approved(hub, run, writer)
        write_lines(run / "samples" / "pairs.jsonl", pairs[:20])
    assert push(approved=approved(hub, run, writer)).state == "succeeded"
    assert "images/11-after.png" not in hub.files(REPO)


def test_a_new_try_of_a_first_push_keeps_its_approval(hub, run, push, writer):
    hub.fail({"match": COMMIT, "status": 403})
    with pytest.raises(HubProblem):
        push(approved=approved(hub, run, writer))
    assert REPO in hub.store.repos
    hub.fail()
    last = read_push(run)
    assert not last.outdated and push(approved=last.approved).state == "succeeded"
