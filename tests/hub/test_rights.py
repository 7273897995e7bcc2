"""What a check of the repository can tell is told before anything is sent: rights, tokens, the card."""

import httpx2
import huggingface_hub.constants as hub_constants
import pytest

from rsm_app.hub import cli
from rsm_app.hub.problems import WORDS, HubProblem, told
from rsm_app.hub.push import Push
from rsm_app.hub.sign_in import Token, account, find_token, local_token
from rsm_app.hub.target import Changes, look
from rsm_app.ui.card_view import target_html
from tests.hub.conftest import OTHER, READER, REPO, WRITER
from trainers import failures
from trainers.errors import InputError

CLUB_READER, FINE, FINE_ALL = "hf_cleReadsClub", "hf_annFine", "hf_annFineAll"
REFUSED = [
    (READER, REPO, "The token may only read. Make one with the role 'write'"),
    (CLUB_READER, "shapes-club/x", "Your role in the organization shapes-club only lets you read."),
    (FINE, "ann/two", "This fine-grained token does not cover writing to ann/two."),
    (OTHER, "ann/x", "The account bob is no member of ann, as far as this token shows."),
]
ALLOWED = [
    (WRITER, REPO),
    (WRITER, "shapes-club/x"),
    (CLUB_READER, "cle/x"),
    (FINE, "ann/one"),
    (FINE_ALL, "ann/two"),
]
CHANGING = ("POST /api/repos", "PUT", "commit", "preupload", "objects/batch")


@pytest.fixture
def here(hub, monkeypatch):
    """The stand-in is the Hub of this process's commands."""
    monkeypatch.setattr(hub_constants, "ENDPOINT", hub.url)
    return hub


def rehearse(run, repo):
    return cli.main(["push", str(run), "--repo", repo, "--dry-run"])


@pytest.mark.parametrize(("token", "repo", "sentence"), REFUSED)
def test_a_rehearsal_and_the_page_say_what_the_push_would_meet(
    here, run, monkeypatch, capsys, token, repo, sentence
):
    monkeypatch.setenv("HF_TOKEN", token)
    assert rehearse(run, repo) == 1
    printed = capsys.readouterr()
    assert sentence in printed.err and "nothing was sent" in printed.out and "<Gallery />" in printed.out
    assert not [line for line in here.lines() if any(word in line for word in CHANGING)]
    html = target_html(look(repo, Token(token), here.url), Changes((), (), (), ()), False)
    assert "may not be written with this token" in html and sentence.partition(". ")[0][:30] in html
    with pytest.raises(HubProblem) as caught:
        Push(run, repo, Token(token), endpoint=here.url).run()
    assert sentence in str(caught.value) and repo not in here.store.repos


@pytest.mark.parametrize(("token", "repo"), ALLOWED)
def test_what_may_be_written_is_not_refused(here, run, monkeypatch, capsys, token, repo):
    monkeypatch.setenv("HF_TOKEN", token)
    assert rehearse(run, repo) == 0 and f"{repo} is made, public" in capsys.readouterr().out
    assert Push(run, repo, Token(token), endpoint=here.url).run().state == "succeeded"
    assert rehearse(run, repo) == 0 and f"{repo} exists and stays public" in capsys.readouterr().out


def test_a_token_that_does_not_say_what_it_covers_may_try(hub, monkeypatch):
    hub.store.users["hf_vague"] = {"name": "ann", "role": "fineGrained", "orgs": []}
    assert look("ann/x", Token("hf_vague"), hub.url).may_write
    assert account(Token(FINE), hub.url).scopes == ("ann/one",)
    assert account(Token(CLUB_READER), hub.url).owners == ("cle",)
    assert account(Token(CLUB_READER), hub.url).readable == ("shapes-club",)


def test_a_rehearsal_where_the_hub_cannot_be_asked_says_so_and_ends_well(here, run, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", WRITER)
    here.fail({"match": "whoami", "cut": 0})
    assert rehearse(run, REPO) == 0 and "what is there already was not looked at" in capsys.readouterr().out
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    assert rehearse(run, REPO) == 0 and "could not be reached" in capsys.readouterr().out
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    assert rehearse(run, REPO) == 0 and "turned off here by HF_HUB_OFFLINE" in capsys.readouterr().out


def test_a_card_that_the_hub_refuses_leaves_no_empty_repository(here, run, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", WRITER)
    here.fail({"match": "validate-yaml", "status": 400, "message": "bad"})
    assert rehearse(run, REPO) == 1 and "refuses the model card's metadata" in capsys.readouterr().err
    with pytest.raises(HubProblem) as caught:
        Push(run, REPO, Token(WRITER), endpoint=here.url).run()
    assert caught.value.kind == "card" and here.store.repos == {}


# -- what this machine says of itself --------------------------------------------------------------------


@pytest.mark.parametrize("token", ["hf_go\u00a0od", "\u201chf_good\u201d", "hf_good hf_other", "hf_g\x07ood"])
def test_a_token_of_this_machine_that_is_none_is_blamed_and_not_repeated(
    online, run, monkeypatch, capsys, token
):
    monkeypatch.setenv("HF_TOKEN", token)
    for words in (["push", str(run), "--repo", REPO], ["push", str(run), "--repo", REPO, "--dry-run"]):
        assert cli.main(words) == 2
        printed = capsys.readouterr()
        assert failures.TOKEN in printed.err and "hf_g" not in printed.err
    with pytest.raises(InputError, match="characters that no token has"):
        find_token()
    assert find_token("hf_pasted").reveal() == "hf_pasted", "which needs none of this machine's"


@pytest.mark.parametrize(("make", "why"), [
    (lambda path: path.mkdir(), "Is a directory"),
    (lambda path: path.write_bytes(b"\xff\xfe\x00binary"), "it is not text"),
])  # fmt: skip
def test_a_token_file_that_cannot_be_read_is_told(online, monkeypatch, tmp_path, make, why):
    make(tmp_path / "token")
    monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InputError, match=f"cannot be read \\({why}\\). Sign in again"):
        local_token()


def test_nobody_signed_in_is_told_what_can_be_done_in_a_shell(online, run, capsys):
    assert cli.main(["push", str(run), "--repo", REPO]) == 2
    printed = capsys.readouterr().err
    assert "hf auth login" in printed and "this page" not in printed


@pytest.mark.parametrize("address", ["127.0.0.1:9", "hub.example", "https//hub.example", "ftp://x"])
def test_an_endpoint_that_is_no_address_is_blamed_and_not_the_network(
    online, run, monkeypatch, capsys, address
):
    monkeypatch.setattr(hub_constants, "ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    for words in (["--dry-run"], []):
        assert cli.main(["push", str(run), "--repo", REPO, *words]) == 1
        assert "HF_ENDPOINT is not the address of a Hub." in capsys.readouterr().err
    assert cli.main(["fetch", "ann/x", "--out", str(run.parent / "new")]) == 1
    assert "HF_ENDPOINT is not the address of a Hub." in capsys.readouterr().err


@pytest.mark.parametrize("proxy", ["socks5h://127.0.0.1:9", "socks4://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch, proxy):
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(HubProblem) as caught, told():
        httpx2.Client()
    assert caught.value.kind == "proxy" and "HTTPS_PROXY" in str(caught.value)


def test_a_path_to_a_run_may_begin_with_a_home(run, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(run.parent))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", str(run.parent / "no-token"))
    assert rehearse(f"~/{run.name}", REPO) == 0 and "nothing was sent" in capsys.readouterr().out
    assert rehearse("~nobody-of-this-name/x", REPO) == 2
    assert "is no path that can be used here" in capsys.readouterr().err


def test_every_problem_is_a_cause_and_a_remedy():
    for kind, words in WORDS.items():
        assert words.cause.endswith(".") and words.remedy.endswith("."), kind
