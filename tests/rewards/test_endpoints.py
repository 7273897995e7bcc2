"""Reward servers and judges over real HTTP: what is sent, what is read, and every way in which they fail."""

import json
import pickle
import threading
import time
from collections import OrderedDict

import numpy as np
import pytest
import torch

from tests.rewards.servers import Reply, brightness, in_json, judging, pickled, question, says, serving
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError
from trainers.preflight import obstacles
from trainers.presets import build_config
from trainers.rewards import load_reward
from trainers.rewards.endpoint import LONGEST_PAUSE, MOST_BYTES
from trainers.rewards.judge import AnswerStore, read_score
from trainers.rewards.server import read_scores

QUICK = {"endpoint_timeout": 0.5, "endpoint_retries": 1}


def images(count=3, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def prompts(count=3):
    return [f"caption {number}" for number in range(count)]


def server(address, **settings):
    return load_reward("server", config=RunConfig(server_url=address, **QUICK | settings))


def judge(address, tmp_path=None, **settings):
    config = RunConfig(judge_url=address, judge_model="m", **QUICK | settings)
    return load_reward("judge", config=config)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_CACHE", str(tmp_path / "cache"))


# -- reward servers ----------------------------------------------------------------------------------


def test_the_pickle_protocol_of_flow_grpo(tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"prompt": "caption 1", "tag": "colors", "include": []}))
    with serving(pickled) as running:
        values = server(running.address, prompts=str(own))(images(), prompts())
        sent = pickle.loads(running.requests[0])
    torch.testing.assert_close(values, images().mean((1, 2, 3)), atol=0.01, rtol=0)
    assert sent["prompts"] == prompts() and sent["only_strict"] is False
    assert all(file.startswith(b"\xff\xd8\xff") for file in sent["images"])
    assert sent["meta_datas"][1]["tag"] == "colors" and sent["meta_datas"][0] == {"prompt": "caption 0"}


def test_the_json_variant_sends_exact_pictures():
    with serving(in_json) as running:
        values = server(running.address, server_protocol="json")(images(), prompts())
        assert running.headers[0]["Content-Type"] == "application/json"
    expected = (images() * 255).round().mean((1, 2, 3)) / 255
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=0)


def test_large_batches_are_sent_in_parts():
    with serving(pickled) as running:
        values = server(running.address)(images(130), prompts(130))
        assert [len(pickle.loads(body)["images"]) for body in running.requests] == [64, 64, 2]
    torch.testing.assert_close(values, images(130).mean((1, 2, 3)), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    "answer",
    [
        {"scores": [1.0, 2.0]},
        {"outputs": [1, 2]},
        {"outputs": np.array([1.0, 2.0])},
        {"scores": [np.float32(1), np.float64(2)]},
        {"rewards": (1.0, 2.0)},
        [1.0, 2.0],
    ],
    ids=repr,
)
@pytest.mark.parametrize("version", [2, 4, 5])
def test_answers_of_every_usual_form_are_read(answer, version):
    assert read_scores(pickle.dumps(answer, version), 2, "pickle") == [1.0, 2.0]


class Harmful:
    def __reduce__(self):
        return print, ("this pickle ran code",)


BAD = {
    "a pickle with code": (pickle.dumps({"scores": [Harmful()]}), "asks for .*print, which is refused"),
    "another class": (pickle.dumps(OrderedDict(scores=[1.0] * 3)), "asks for collections.OrderedDict"),
    "no pickle": (b"<html>busy</html>", "something that is no pickle"),
    "nothing": (b"", "something that is no pickle"),
    "too few": (pickle.dumps({"scores": [1.0]}), "1 scores for 3 pictures"),
    "too many": (pickle.dumps({"scores": [1.0] * 4}), "4 scores for 3 pictures"),
    "not a number": (pickle.dumps({"scores": [1.0, float("nan"), 1.0]}), "the score nan"),
    "infinite": (pickle.dumps({"scores": [1.0, float("inf"), 1.0]}), "the score inf"),
    "words": (pickle.dumps({"outputs": ["good", "bad", "ugly"]}), "no numbers"),
    "one text": (pickle.dumps({"outputs": "123"}), "no list"),
    "other keys": (pickle.dumps({"result": [1.0] * 3}), "without any of scores, outputs, rewards"),
}


@pytest.mark.parametrize(("body", "words"), BAD.values(), ids=BAD)
def test_nonsense_is_asked_for_again_and_then_told(body, words, capsys):
    with serving(lambda *_: Reply(body)) as running:
        with pytest.raises(
            FaultError, match=f"of 'server' answered with.* {words}|answered {words}"
        ) as caught:
            server(running.address)(images(), prompts())
        assert len(running.requests) == 2
    assert "2 times" in str(caught.value) and "resume the run" in str(caught.value)
    assert "\n" not in str(caught.value) and "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize(("body", "words"), [(b"{", "no json"), (b'{"scores": [1, 2, null]}', "no numbers")])
def test_nonsense_of_the_json_variant_is_told(body, words):
    with serving(lambda *_: Reply(body)) as running, pytest.raises(FaultError, match=words):
        server(running.address, server_protocol="json")(images(), prompts())


@pytest.mark.parametrize(
    ("reply", "attempts", "words"),
    [
        (Reply(b"oops", 500), 2, 'status 500 2 times and says "oops"'),
        (Reply(b"", 503), 2, "status 503"),
        (Reply(b"", 404), 1, "status 404: nothing is there"),
        (Reply(b"", 401), 1, "status 401: its key is missing or wrong"),
        (Reply(b"", 302, headers={"Location": "http://127.0.0.1:9/"}), 1, "status 302"),
    ],
    ids=["500", "503", "404", "401", "redirect"],
)
def test_failures_are_tried_again_only_where_that_can_help(reply, attempts, words):
    with serving(lambda *_: reply) as running:
        with pytest.raises(FaultError, match=words):
            server(running.address, endpoint_timeout=60.0)(images(), prompts())
        assert len(running.requests) == attempts


@pytest.mark.parametrize(
    "reply",
    [Reply(pause=1.0), Reply([b"x"] * 40, pause=0.05), Reply(header_pause=0.05)],
    ids=["silent", "drop by drop", "headers without an end"],
)
def test_an_answer_that_takes_too_long_is_asked_for_once_more(reply):
    """What the server has seen says nothing: on a busy machine it may see a request too late."""
    words = "longer than 0.5 seconds to answer 2 times"
    with serving(lambda *_: reply) as running, pytest.raises(FaultError, match=words):
        server(running.address)(images(), prompts())


def test_a_huge_answer_is_cut_off():
    chunk = b"\0" * 2**20
    with serving(lambda *_: Reply([chunk] * (MOST_BYTES // len(chunk) + 4))) as running:
        with pytest.raises(FaultError, match="more than 16 MiB"):
            server(running.address, endpoint_timeout=20.0)(images(), prompts())
        assert len(running.requests) == 1


def test_a_server_that_is_gone_is_told():
    with serving(pickled) as running:
        address = running.address
    with pytest.raises(FaultError, match="could not be reached or broke off .* 2 times"):
        server(address)(images(), prompts())
    assert LONGEST_PAUSE < 60


def test_a_failure_that_passes_changes_nothing():
    replies = iter([Reply(b"", 500), Reply(b"", 429, headers={"Retry-After": "0.2"}), None])

    def answer(body, headers):
        return next(replies) or pickled(body, headers)

    with serving(answer) as running:
        values = server(running.address, endpoint_retries=3)(images(), prompts())
        assert len(running.requests) == 3
    torch.testing.assert_close(values, images().mean((1, 2, 3)), atol=0.01, rtol=0)


# -- the judge ---------------------------------------------------------------------------------------


def test_the_judge_gets_caption_question_and_picture():
    with serving(judging) as running:
        values = judge(running.address, judge_question="Is it calm?")(images(), prompts())
        texts = sorted(question(body)[0] for body in running.requests)
        sent = json.loads(running.requests[0])
    torch.testing.assert_close(values, images().mean((1, 2, 3)), atol=2e-3, rtol=0)
    assert sent["model"] == "m" and sent["temperature"] == 0
    assert all(f"caption {n}" in text and "Is it calm?" in text for n, text in enumerate(texts))
    assert not any("Authorization" in headers for headers in running.headers)


def test_questions_are_asked_side_by_side_and_only_once():
    def slowly(body, headers):
        time.sleep(0.1)
        return judging(body, headers)

    with serving(slowly) as running:
        reward = judge(running.address, endpoint_parallel=4)
        first = reward(images(8), prompts(8))
        assert len(running.requests) == 8 and 2 <= running.most_at_once <= 4
        torch.testing.assert_close(reward(images(8), prompts(8)), first, rtol=0, atol=0)
        again = judge(running.address)  # another process would read the same file
        torch.testing.assert_close(again(images(8), prompts(8)), first, rtol=0, atol=0)
        assert len(running.requests) == 8
        judge(running.address, judge_question="Another?")(images(1), prompts(1))
        assert len(running.requests) == 9


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 7", 0.7),
        ("First score 3, but then\n**Score:** 8.5", 0.85),
        ("score = 10", 1.0),
        ("Score: 0/10", 0.0),
        ("Score (0-10): 8", 0.8),
        ("**Score (0–10):** 8.5", 0.85),
        ("Score [0 to 10] = **7**", 0.7),
        ("Score (out of 10): 9/10, and no more", 0.9),
        ("Score: 8 (0-10)", 0.8),
        ("Score: [7]", 0.7),
        ("Score:\n8 out of 10.", 0.8),
        ("Score: 8\nThis score says it all.", 0.8),
    ],
)
def test_the_last_score_counts(text, score):
    assert read_score(says(text).body) == score


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (says("I like it."), "without a line 'Score: N'"),
        (says("Score: 11"), "the score 11, which is not within 0 and 10"),
        (says("Score: -2"), "the score -2"),
        (says("Score 0-10: 8"), "without a line 'Score: N'"),
        (says("First score: 3\nScore (0-10)"), "without a line 'Score: N'"),
        (says("Score: 7-8"), "without a line 'Score: N'"),
        (says("Score: 3 out of 5"), "without a line 'Score: N'"),
        (says("Score: 8,5"), "without a line 'Score: N'"),
        (Reply(b'{"error": "no"}'), "no chat completion"),
        (Reply(b'{"choices": [{"message": {"content": null}}]}'), "no chat completion"),
        (Reply(b"\xff\xfe"), "no chat completion"),
    ],
)
def test_nonsense_of_the_judge_is_told(reply, words):
    with serving(lambda *_: reply) as running:
        with pytest.raises(FaultError, match=f"'judge' answered with.*{words}|answered {words}"):
            judge(running.address)(images(1), prompts(1))
        assert len(running.requests) == 2


def test_what_cannot_be_told_is_asked_again_and_never_kept():
    replies = iter([says("Score 0-10: 8"), says("Score (0-10): 8")])
    with serving(lambda *_: next(replies)) as running:
        for _ in range(2):
            assert judge(running.address)(images(1), prompts(1)).tolist() == [pytest.approx(0.8)]
        assert len(running.requests) == 2


def test_when_one_question_fails_for_good_the_others_give_up_too():
    calls = threading.Semaphore(0)

    def answer(*_):
        calls.release()
        return Reply(b"", 500)

    with serving(answer) as running:
        with pytest.raises(FaultError, match="status 500"):
            judge(running.address, endpoint_retries=2, endpoint_parallel=2)(images(16), prompts(16))
        assert len(running.requests) <= 2 * 3 + 16  # of 48, had each question kept to its own three attempts


def test_the_key_is_sent_but_nowhere_else(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_JUDGE_KEY", "very-secret")
    config = build_config("tiny-flow", "grpo", "judge", {"judge_key_variable": "MY_JUDGE_KEY"})
    with serving(lambda *_: Reply(b"", 403)) as running:
        reward = judge(running.address, judge_key_variable="MY_JUDGE_KEY")
        with pytest.raises(FaultError) as caught:
            reward(images(1), prompts(1))
        assert running.headers[0]["Authorization"] == "Bearer very-secret"
    assert "very-secret" not in str(caught.value) + config.to_json() + repr(vars(reward.parts[0].reward))
    assert not any(b"very-secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("key", ["two\nlines", "with space", "schlüssel", "tab\tbed"])
def test_a_key_that_is_none_is_told_without_quoting_it(monkeypatch, key):
    monkeypatch.setenv("MY_JUDGE_KEY", key)
    with pytest.raises(FaultError, match="MY_JUDGE_KEY holds characters that no key has") as caught:
        judge("http://127.0.0.1:9", judge_key_variable="MY_JUDGE_KEY")
    assert key not in str(caught.value)


def test_answers_are_kept_in_memory_where_no_file_can_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = AnswerStore(tmp_path / "file" / "store.sqlite")
    store.put("a", 0.5)
    assert store.get("a") == 0.5 and store.get("b") is None
    damaged = tmp_path / "store.sqlite"
    damaged.write_bytes(b"this is no database" * 100)
    store = AnswerStore(damaged)
    store.put("a", 0.25)
    assert store.get("a") == 0.25


# -- before a run ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"server_url": "ftp://x/y"}, "'server_url' must be an address"),
        ({"server_url": "not an address"}, "'server_url' must be an address"),
        ({"judge_url": "http://me:pass@host/v1"}, "put a key into an environment variable"),
        ({"judge_url": "https://host/v1?key=very-secret"}, "'judge_url' must end before any '\\?'"),
        ({"server_url": "https://host/#very-secret"}, "'server_url' must end before any '\\?'"),
        ({"server_url": "https://host/score?"}, "'server_url' must end before any '\\?'"),
        ({"judge_key_variable": "sk-1234 5678"}, "never the key itself"),
        ({"endpoint_timeout": 0}, "'endpoint_timeout' must be between"),
        ({"server_protocol": "xml"}, "'server_protocol' must be one of"),
    ],
)
def test_settings_that_cannot_work_are_told(settings, words):
    with pytest.raises(InputError, match=words) as caught:
        build_config("tiny-flow", "grpo", "server", settings)
    assert "very-secret" not in str(caught.value)


def test_what_is_missing_is_told_before_a_run(monkeypatch):
    for name in ("RSM_REWARD_SERVER", "RSM_JUDGE_URL", "RSM_JUDGE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    found = obstacles(
        RunConfig(reward="server:1,judge:2", others="shapes", judge_key_variable="NOT_SET_AT_ALL")
    )
    assert len(found) == 4 and "needs an address" in found[0] and "needs judge_url" in found[1]
    assert "needs judge_model" in found[2] and "NOT_SET_AT_ALL" in found[3]
    with serving(pickled) as running:
        address = running.address
        assert obstacles(RunConfig(reward="server", server_url=f"{address}/here")) == []
    assert "Nothing answers at" in obstacles(RunConfig(reward="server", server_url=f"{address}/gone"))[0]
    assert obstacles(RunConfig(reward="brightness", server_url=f"{address}/gone")) == []
    with pytest.raises(FaultError, match="needs an address"):
        load_reward("server")
    with pytest.raises(FaultError, match="needs judge_url"):
        load_reward("judge")


def test_brightness_of_the_helpers_is_that_of_the_picture():
    assert brightness(question(json.dumps({"messages": [{"content": _content()}]}).encode())[1]) == 1.0


def _content():
    from trainers.rewards.judge import _request
    from trainers.rewards.server import encoded

    return _request("m", "text", encoded(np.full((4, 4, 3), 255, np.uint8), "PNG"))["messages"][0]["content"]
