"""Waiting for an endpoint: whoever waits can leave. What it says is told, what it refuses is left out."""

import contextlib
import json
import threading

import pytest
import torch

from tests.rewards.servers import Reply, judging, pickled, serving
from trainers.config import RunConfig
from trainers.errors import FaultError
from trainers.interruption import STOP_SECONDS, Interruption, StopRequested
from trainers.rewards import load_reward
from trainers.rewards.endpoint import explanation
from trainers.run_folder import RunFolder

PATIENT = {"endpoint_timeout": 3600.0, "endpoint_retries": 20}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_CACHE", str(tmp_path / "cache"))


def reward(name, address, **settings):
    places = {"server_url": address, "judge_url": address, "judge_model": "m"}
    return load_reward(name, config=RunConfig(**places | PATIENT | settings))


def ask(mixture, count=3):
    return mixture(torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)), ["words"] * count)


@contextlib.contextmanager
def hanging():
    """A server that takes a request and never answers it."""
    over = threading.Event()

    def answer(*_):
        over.wait()
        return Reply()

    with serving(answer) as running:
        try:
            yield running
        finally:
            over.set()


@pytest.mark.parametrize("name", ["server", "judge"])
def test_a_stop_ends_the_wait_for_an_endpoint_that_hangs(name, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    with hanging() as running:
        mixture = reward(f"brightness:1,{name}:1", running.address)
        interruption, looks = Interruption(folder), []

        def check(seconds):
            looks.append(seconds)
            if len(running.requests):
                folder.request_stop("the test wants it")
            interruption.check_wait(seconds)

        mixture.interrupt_with(check)
        with pytest.raises(StopRequested):
            ask(mixture)
        assert looks and all(seconds < PATIENT["endpoint_timeout"] for seconds in looks)


def test_a_stop_ends_the_pause_before_another_attempt(tmp_path):
    with serving(lambda *_: Reply(b"", 503, headers={"Retry-After": "3600"})) as running:
        mixture = reward("server", running.address)

        def check(seconds):
            if running.requests:
                raise StopRequested

        mixture.interrupt_with(check)
        with pytest.raises(StopRequested):
            ask(mixture)
        assert len(running.requests) == 1


def test_where_a_stop_must_wait_it_waits_a_little(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    interruption = Interruption(folder)
    interruption.finishing = True
    interruption.check_wait(3600.0)
    folder.request_stop("the test wants it")
    interruption.check_wait(STOP_SECONDS)
    with pytest.raises(StopRequested):
        interruption.check_wait(STOP_SECONDS + 0.1)


def test_an_endpoint_that_was_left_still_answers():
    replies = iter([Reply(b"", 503)])
    with serving(lambda body, headers: next(replies, None) or pickled(body, headers)) as running:
        mixture = reward("server", running.address)
        leave = True

        def check(seconds):
            if leave and running.requests:
                raise StopRequested

        mixture.interrupt_with(check)
        with pytest.raises(StopRequested):
            ask(mixture)
        leave = False
        assert ask(mixture).isfinite().all()


def test_as_many_questions_as_wanted_are_asked_at_once():
    everybody = threading.Barrier(120)

    def answer(body, headers):
        everybody.wait(60)
        return judging(body, headers)

    with serving(answer) as running:
        ask(reward("judge", running.address, endpoint_parallel=120), 120)
        assert running.most_at_once == 120


# -- what it says ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            b'{"error": {"message": "The model `m` does\\nnot exist.", "type": "x"}}',
            "The model `m` does not exist.",
        ),
        (b'{"error": "Out of credit"}', "Out of credit"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"message": "Busy"}', "Busy"),
        (b'{"detail": [{"loc": ["body"]}]}', '{"detail": [{"loc": ["body"]}]}'),
        (b"plain\x00\x1b[31m words\xff", "plain [31m words"),
        (b"the key sk-secret is wrong", "the key … is wrong"),
        (b"<html><body>busy</body></html>", ""),
        (b"", ""),
        (b"word " * 100, "word " * 30 + "…"),
    ],
)
def test_what_an_endpoint_says_is_told_shortly_and_without_the_key(body, told):
    assert explanation(body, "sk-secret") == told


def test_the_explanation_is_part_of_the_sentence(monkeypatch):
    monkeypatch.setenv("MY_JUDGE_KEY", "sk-secret")
    body = b'{"error": {"message": "Incorrect API key provided: sk-secret."}}'
    with serving(lambda *_: Reply(body, 401)) as running:
        mixture = reward("judge", running.address, judge_key_variable="MY_JUDGE_KEY")
        with pytest.raises(
            FaultError, match=r'status 401.* and says "Incorrect API key provided: …\."'
        ) as caught:
            ask(mixture, 1)
    assert "sk-secret" not in str(caught.value)


def test_a_judge_that_wants_its_own_temperature_keeps_it():
    told = b'{"error": {"message": "Unsupported value: \'temperature\' does not support 0 with this model."}}'

    def answer(body, headers):
        return Reply(told, 400) if "temperature" in json.loads(body) else judging(body, headers)

    with serving(answer) as running:
        mixture = reward("judge", running.address, endpoint_parallel=1, endpoint_retries=0)
        assert ask(mixture).isfinite().all()
        assert len(running.requests) == 1 + 3, "it is learned once"


def test_another_refusal_of_a_request_is_told_at_once():
    with serving(lambda *_: Reply(b'{"error": "The picture is too large."}', 400)) as running:
        with pytest.raises(FaultError, match='status 400 and says "The picture is too large."'):
            ask(reward("judge", running.address), 1)
        assert len(running.requests) == 1
