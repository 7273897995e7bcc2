"""What the app lets rewards do: the judge's key for its workers alone, and obstacles told before a run."""

import dataclasses

import pytest

from rsm_app.jobs.environment import worker_environment
from rsm_app.ui import form
from tests.jobs.small_runs import small_config
from trainers.errors import InputError

SECRETS = {"OPENAI_API_KEY": "k", "HF_TOKEN": "t", "HOME": "/h", "RSM_JUDGE_KEY_VARIABLE": "OPENAI_API_KEY"}


@pytest.mark.parametrize("reward", ["judge", "shapes:1, judge:0.5", "judge:2"])
def test_only_the_judge_s_key_reaches_a_worker_that_asks_the_judge(reward):
    given = worker_environment(SECRETS, {"reward": reward, "others": ""})
    assert given["OPENAI_API_KEY"] == "k" and "HF_TOKEN" not in given and given["HOME"] == "/h"
    assert "OPENAI_API_KEY" in worker_environment(SECRETS, {"reward": "shapes", "others": "judge"})


OWN_JUDGE = SECRETS | {"RSM_JUDGE_URL": "https://judge.example/v1"}
CRAFTED = [
    {"judge_key_variable": "HF_TOKEN"},
    {"judge_key_variable": "HF_TOKEN", "judge_url": "https://evil.example/v1"},
    {"judge_key_variable": "OPENAI_API_KEY", "judge_url": "https://evil.example/v1"},
    {"judge_url": "https://evil.example/v1"},
]


@pytest.mark.parametrize("settings", CRAFTED)
@pytest.mark.parametrize("space", [True, False])
def test_no_key_follows_a_run_s_settings_to_another_address(settings, space, monkeypatch):
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", "1" if space else "0")
    monkeypatch.setenv("SYSTEM", "spaces" if space else "")
    given = worker_environment(OWN_JUDGE, {"reward": "judge", **settings})
    assert "HF_TOKEN" not in given and "OPENAI_API_KEY" not in given


def test_the_owner_s_own_judge_gets_its_key_also_when_the_settings_repeat_its_address(monkeypatch):
    same = {"judge_url": "https://judge.example/v1", "judge_key_variable": "OPENAI_API_KEY"}
    assert worker_environment(OWN_JUDGE, {"reward": "judge", **same})["OPENAI_API_KEY"] == "k"
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", "1")  # whoever runs the app trusts whoever starts runs
    monkeypatch.delenv("SYSTEM", raising=False)
    other = {"reward": "judge", "judge_url": "https://other.example/v1", "judge_key_variable": "MINE"}
    given = worker_environment(OWN_JUDGE | {"MINE": "m"}, other)
    assert given["MINE"] == "m" and "OPENAI_API_KEY" not in given


@pytest.mark.parametrize("settings", [None, {}, {"reward": "shapes"}, {"reward": "judgement", "others": ""}])
def test_other_workers_get_no_key(settings):
    assert "OPENAI_API_KEY" not in worker_environment(SECRETS, settings)
    unnamed = {name: value for name, value in SECRETS.items() if name != "RSM_JUDGE_KEY_VARIABLE"}
    assert "OPENAI_API_KEY" not in worker_environment(unnamed, {"reward": "judge", "others": ""})


def test_a_run_that_lacks_something_is_refused_before_a_worker_starts(supervisor, monkeypatch):
    for name in ("RSM_REWARD_SERVER", "RSM_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", "/nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere/hub")
    config = dataclasses.replace(small_config(), reward="pick_score:1,server:1")
    with pytest.raises(InputError) as caught:
        supervisor.submit(config)
    assert len(caught.value.problems) == 3 and "PickScore_v1" in caught.value.problems[0]
    assert supervisor.store.runs() == []


def test_the_form_lists_what_can_run_here_and_says_why_the_rest_cannot(monkeypatch):
    monkeypatch.delenv("RSM_WEIGHTS", raising=False)
    monkeypatch.delenv("RSM_REWARD_SERVER", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere/hub")
    names = [name for _, name in form.reward_options()]
    assert "shapes" in names and "pick_score" not in names and "server" not in names
    told = form.rewards_ruled_out()
    assert "PickScore" in told and "HF_HUB_OFFLINE" in told and "RSM_REWARD_SERVER" in told
    monkeypatch.setenv("RSM_REWARD_SERVER", "http://127.0.0.1:9")
    assert "server" in [name for _, name in form.reward_options()]
