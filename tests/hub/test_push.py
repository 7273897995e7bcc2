"""Pushes of a real run with the real library to a real server: what arrives, what is told, what faults do."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import huggingface_hub.constants as hub_constants
import pytest
from huggingface_hub.utils import http_backoff

from rsm_app.hub import push as pushing
from rsm_app.hub.bundle import bundle
from rsm_app.hub.problems import HubProblem
from rsm_app.hub.push import Push
from rsm_app.hub.push_status import PushStatus, cancel_push, read_push, write_push
from rsm_app.hub.sign_in import Token, account, find_token, repositories
from rsm_app.hub.target import changes, look
from rsm_app.hub.wire import Refused, conversation
from tests.e2e.shell import ROOT, lines, read
from tests.hub.conftest import OTHER, READER, REPO, WRITER, environment
from tests.jobs.small_runs import wait_for
from trainers import hub_client
from trainers.adapter_file import WEIGHTS
from trainers.errors import InputError
from trainers.run_folder import write_lines

COMMIT = "POST /api/models/.*/commit"
BATCH = "objects/batch"
OBJECT = "PUT /_objects"


def test_everything_arrives_as_it_was_and_the_state_says_where(hub, run, push):
    status = push()
    gathered = bundle(run, REPO)
    sent = hub.files(REPO)
    for file in gathered.files:
        with file.open() as source:
            assert sent[file.path] == source.read(), file.path
    assert set(sent) == {file.path for file in gathered.files} | {".gitattributes"}
    assert status == read_push(run) and status.state == "succeeded" and status.progress == 1.0
    assert status.url == f"{hub.url}/{REPO}" and status.commit == hub.store.repos[REPO]["commits"][-1]["oid"]
    assert read(run / "status.json")["state"] == "succeeded"


def test_a_second_push_changes_only_what_differs(hub, run, push, writer):
    first = push()
    assert push().commit == first.commit, "nothing has changed, so there is no new revision"
    pairs = lines(run / "samples" / "pairs.jsonl")
    write_lines(run / "samples" / "pairs.jsonl", pairs[:22])
    told = changes(look(REPO, writer, hub.url), bundle(run, REPO))
    assert told.removed == ("images/12-before.png", "images/12-after.png") and not told.added
    assert set(told.changed) == {"README.md", "images/grid.png", "images/pairs.jsonl"}
    puts = sum(line.startswith(OBJECT) for line in hub.lines())
    assert push().commit != first.commit
    assert sum(line.startswith(OBJECT) for line in hub.lines()) == puts + 1
    assert "images/12-after.png" not in hub.files(REPO)
    assert changes(look(REPO, writer, hub.url), bundle(run, REPO)).nothing_new


def test_visibility_is_asked_once(hub, push, writer):
    push(private=True)
    assert look(REPO, writer, hub.url).private is True
    push(private=False)
    assert look(REPO, writer, hub.url).private is True
    assert look(REPO, Token(OTHER), hub.url).exists is False


def test_a_silent_hub_is_told_also_where_it_is_only_asked_whose_token_it_is(hub, writer, monkeypatch):
    monkeypatch.setattr(hub_client, "ANSWER", httpx2.Timeout(0.2))
    hub.fail({"match": "whoami|GET /api/models", "delay": 30})
    for ask in (account, lambda *words: repositories(writer, "ann", hub.url)):
        with pytest.raises(HubProblem) as caught:
            ask(writer, hub.url)
        assert caught.value.kind == "cut"


def test_repositories_of_an_account_are_told(hub, push, writer):
    push(private=True)
    assert repositories(writer, "ann", hub.url) == (REPO,)
    assert repositories(Token(OTHER), "ann", hub.url) == ()


def test_who_may_write_is_known_before(hub, push, writer):
    assert look(REPO, writer, hub.url).may_write and not look(REPO, Token(OTHER), hub.url).may_write
    push()
    assert look(REPO, writer, hub.url).may_write and not look(REPO, Token(READER), hub.url).may_write
    assert account(writer, hub.url).owners == ("ann", "shapes-club")


# -- faults: each is told with cause and remedy, and loses nothing --------------------------------------

FAULTS = [
    ("sign_in", {"match": "whoami", "status": 401, "headers": {"X-Error-Message": "Invalid credentials"}}),
    ("sign_in", {"match": COMMIT, "status": 401, "headers": {"X-Error-Message": "Invalid credentials"}}),
    ("forbidden", {"match": "repos/create", "status": 403}),
    ("forbidden", {"match": COMMIT, "status": 403}),
    ("missing", {"match": "preupload", "status": 404, "code": "RepoNotFound"}),
    ("conflict", {"match": COMMIT, "status": 409}),
    ("conflict", {"match": COMMIT, "status": 412}),
    ("busy", {"match": BATCH, "status": 429, "headers": {"Retry-After": "3600"}}),
    ("busy", {"match": COMMIT, "status": 429}),
    ("hub_fault", {"match": BATCH, "status": 500}),
    ("hub_fault", {"match": COMMIT, "status": 503}),
    ("cut", {"match": OBJECT, "cut": 1000}),
    ("cut", {"match": COMMIT, "cut": 1000}),
    ("gated", {"match": "GET /api/models/ann", "status": 403, "code": "GatedRepo"}),
    ("quota", {"match": BATCH, "status": 403, "message": "Private repository storage limit reached"}),
    ("too_large", {"match": COMMIT, "status": 413}),
    ("unexpected", {"match": "preupload", "status": 418}),
]


@pytest.mark.parametrize(("kind", "rule"), FAULTS, ids=[f"{k}-{i}" for i, (k, _) in enumerate(FAULTS)])
def test_a_fault_is_told_and_a_new_try_goes_on(hub, run, push, kind, rule):
    write_lines(run / "samples" / "pairs.jsonl", lines(run / "samples" / "pairs.jsonl")[:4])
    hub.fail(rule)
    with pytest.raises(HubProblem) as caught:
        push()
    told, status = caught.value, read_push(run)
    assert told.kind == kind and told.cause in str(told) and told.remedy in str(told)
    assert (status.state, status.kind, status.error, status.remedy) == (
        "failed",
        kind,
        told.cause,
        told.remedy,
    )
    assert status.can_retry and not status.at_work and not status.commit
    assert WRITER not in f"{told!r} {told} {status}"
    if REPO in hub.store.repos:
        assert set(hub.files(REPO)) == {".gitattributes"}, "the newest revision is the old one"
    puts = sum(line.startswith(OBJECT) for line in hub.lines())
    hub.fail()
    assert push().state == "succeeded"
    again = sum(line.startswith(OBJECT) for line in hub.lines()) - puts
    if "commit" in rule["match"]:
        assert again == 0, "large files that had arrived are not sent again"


def test_five_hundred_twice_then_success_needs_nobody(hub, run, push):
    hub.fail({"match": BATCH, "status": 500, "times": 2}, {"match": COMMIT, "status": 500, "times": 2})
    seen = []
    assert push(listener=lambda status: seen.append(status.state)).state == "succeeded"
    assert seen.count("waiting") == 4


def test_a_request_to_wait_is_kept_and_told(hub, push):
    hub.fail({"match": COMMIT, "status": 429, "headers": {"Retry-After": "1"}, "times": 1})
    seen, began = [], time.monotonic()
    assert push(listener=seen.append).state == "succeeded"
    waits = [status for status in seen if status.state == "waiting"]
    assert len(waits) == 1 and waits[0].retry_after == 1.0 and "Trying again in 1 s" in waits[0].message
    assert time.monotonic() - began >= 1.0


def test_a_long_wait_is_told_and_not_waited_for(hub, push):
    hub.fail({"match": COMMIT, "status": 429, "headers": {"Retry-After": "3600"}})
    seen = []
    with pytest.raises(HubProblem, match="3600 seconds"):
        push(listener=lambda status: seen.append(status.state))
    assert seen and "waiting" not in seen


def test_an_upload_cut_off_in_the_middle_goes_on_by_itself(hub, push):
    hub.fail({"match": OBJECT, "cut": 500, "times": 2})
    assert push().state == "succeeded"


def test_a_lost_answer_to_a_commit_that_was_made_is_no_conflict(hub, push, monkeypatch):
    real, lost = pushing.HfApi.create_commit, []

    def forgetful(self, *words, **named):
        made = real(self, *words, **named)
        if not lost:
            lost.append(made.oid)
            raise pushing.HubProblem("cut")
        return made

    monkeypatch.setattr(pushing.HfApi, "create_commit", forgetful)
    assert push().commit == lost[0]
    assert len(hub.store.repos[REPO]["commits"]) == 2


def test_a_repository_that_changed_meanwhile_is_not_overwritten(hub, run, push, monkeypatch):
    push()
    repo, real = hub.store.repos[REPO], pushing.Freight

    def meanwhile(*words):
        hub.store.commit(repo, {"README.md": hub.store.keep(b"by hand")}, "by hand")
        return real(*words)

    monkeypatch.setattr(pushing, "Freight", meanwhile)
    write_lines(run / "samples" / "pairs.jsonl", lines(run / "samples" / "pairs.jsonl")[:20])
    with pytest.raises(HubProblem) as caught:
        push()
    assert caught.value.kind == "conflict" and hub.files(REPO) == {"README.md": b"by hand"}


def test_an_account_without_room_is_told(hub, push):
    hub.fail(quota=1000)
    with pytest.raises(HubProblem) as caught:
        push()
    assert caught.value.kind == "quota" and "Delete something" in str(caught.value)


@pytest.mark.parametrize(
    ("token", "kind"), [("hf_nobody", "sign_in"), (READER, "read_only"), (OTHER, "forbidden")]
)
def test_tokens_that_do_not_fit(hub, push, token, kind):
    with pytest.raises(HubProblem) as caught:
        push(token=Token(token))
    assert caught.value.kind == kind


def test_a_refused_connection_is_told_at_once(online, run, writer):
    seen = []
    refused = Push(
        run, REPO, writer, endpoint="http://127.0.0.1:9", listener=lambda status: seen.append(status.state)
    )
    with pytest.raises(HubProblem) as caught:
        refused.run()
    assert caught.value.kind == "unreachable" and "waiting" not in seen


def test_offline_mode_is_told(run, writer, monkeypatch):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubProblem) as caught:
        Push(run, REPO, writer, endpoint="http://127.0.0.1:9").run()
    assert caught.value.kind == "offline" and "HF_HUB_OFFLINE" in str(caught.value)


def test_a_bad_name_is_refused_before_anything_is_asked(hub, run, writer):
    with pytest.raises(InputError, match="cannot name a repository"):
        Push(run, "ann/a b", writer, endpoint=hub.url)
    assert hub.lines() == [] and read_push(run).state == "none"


# -- a state of its own ---------------------------------------------------------------------------------


def test_one_push_of_a_run_at_a_time_and_cancel_leaves_the_old_revision(hub, run, writer):
    hub.fail({"match": OBJECT, "delay": 0.3})
    Push(run, REPO, writer, endpoint=hub.url).start()
    wait_for(lambda: read_push(run).phase == "upload", 60, "the upload")
    with pytest.raises(InputError, match="Another push"):
        Push(run, REPO, writer, endpoint=hub.url).run()
    assert cancel_push(run)
    status = wait_for(lambda: (s := read_push(run)) and not s.at_work and s, 60, "the end")
    assert (status.state, status.kind) == ("cancelled", "cancelled") and "unchanged" in status.error
    assert set(hub.files(REPO)) == {".gitattributes"}
    assert not cancel_push(run)
    hub.fail()
    assert Push(run, REPO, writer, endpoint=hub.url).run().state == "succeeded"


def test_a_long_wait_can_be_cancelled(hub, run, writer):
    hub.fail({"match": BATCH, "status": 429, "headers": {"Retry-After": "200"}})
    Push(run, REPO, writer, endpoint=hub.url).start()
    wait_for(lambda: read_push(run).state == "waiting", 60, "the wait")
    cancel_push(run)
    wait_for(lambda: read_push(run).state == "cancelled", 10, "the end")


def test_a_push_whose_process_is_gone_reads_interrupted(run):
    write_push(run, PushStatus(state="running", phase="upload", repo=REPO, pid=2**22 + 1, pid_identity="x"))
    status = read_push(run)
    assert status.state == "interrupted" and "ended" in status.error and status.can_retry


def test_a_damaged_state_is_no_push(run):
    for text in ("", "[]", '{"state": "dancing"}', '{"state": 3, "bytes_done": "x"}'):
        (run / "push.json").write_text(text)
        assert read_push(run).state == "none"


def test_only_requests_of_the_conversation_are_never_repeated_silently(hub):
    def ask():
        headers = {"Authorization": f"Bearer {WRITER}"}
        return http_backoff("GET", f"{hub.url}/api/whoami-v2", headers=headers, base_wait_time=0.01)

    with conversation(), ThreadPoolExecutor(1) as other:
        hub.fail({"match": "whoami", "status": 503, "times": 1})
        assert other.submit(ask).result(60).status_code == 200
        hub.fail({"match": "whoami", "status": 503, "times": 1})
        with pytest.raises(Refused):
            ask()
    hub.fail({"match": "whoami", "status": 503, "times": 1})
    assert ask().status_code == 200


def test_the_command_line_pushes_and_rehearses(hub, run, tmp_path):
    def command(*words, **more):
        return subprocess.run(
            [sys.executable, "-m", "rsm_app.hub", *words],
            cwd=ROOT,
            env=environment(hub, tmp_path / "home", **more),
            capture_output=True,
            text=True,
            timeout=120,
        )

    dry = command("push", str(run), "--repo", REPO, "--dry-run")
    assert dry.returncode == 0 and "<Gallery />" in dry.stdout and "nothing was sent" in dry.stdout
    assert hub.lines() == [] and "what is there already was not looked at" in dry.stdout
    dry = command("push", str(run), "--repo", REPO, "--private", "--dry-run", HF_TOKEN=WRITER)
    assert f"{REPO} is made, private." in dry.stdout and f"added  {WEIGHTS}" in dry.stdout
    assert REPO not in hub.store.repos
    done = command("push", str(run), "--repo", REPO, "--private", HF_TOKEN=WRITER)
    assert done.returncode == 0 and f"{hub.url}/{REPO}" in done.stdout, done.stderr
    assert f"{REPO} is made, private." in done.stdout and f"added  {WEIGHTS}" in done.stdout
    assert hub.store.repos[REPO]["private"]
    write_lines(run / "samples" / "pairs.jsonl", lines(run / "samples" / "pairs.jsonl")[:22])
    dry = command("push", str(run), "--repo", REPO, "--dry-run", HF_TOKEN=WRITER)
    assert f"{REPO} exists and stays private." in dry.stdout
    assert "removed  images/12-after.png" in dry.stdout and "changed  README.md" in dry.stdout
    assert f"unchanged  {WEIGHTS}" in dry.stdout
    assert command("push", str(run), "--repo", REPO, HF_TOKEN="").returncode == 2
    assert command("push", str(run)).returncode == 2
    refused = command("push", str(run), "--repo", REPO, HF_TOKEN="hf_wrong")
    assert refused.returncode == 1 and "does not accept the token" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_token_is_found_in_the_order_that_is_promised(online, monkeypatch):
    assert find_token("hf_pasted", "hf_oauth").reveal() == "hf_pasted"
    assert find_token("", "hf_oauth").source == "signed in"
    with pytest.raises(InputError, match="Nobody is signed in"):
        find_token()
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert find_token().source == "this machine"
    with pytest.raises(InputError):
        find_token(local=False)
    with pytest.raises(InputError) as caught:
        find_token("hf with spaces")
    assert "spaces" in str(caught.value) and "hf with" not in str(caught.value)
    assert os.environ["HF_TOKEN"] == "hf_mine"
