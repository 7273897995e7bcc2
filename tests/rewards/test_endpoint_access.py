"""Which endpoints a run may use where visitors start runs: those of the environment and no other."""

import dataclasses
import os

import pytest

from tests.rewards.servers import judging, pickled, serving
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError, StudioError
from trainers.opening import reopen, start
from trainers.preflight import obstacles
from trainers.reevaluate import reevaluate
from trainers.rewards import load_reward

ELSEWHERE = [
    RunConfig(reward="server", server_url="http://127.0.0.1:9/steal"),
    RunConfig(reward="judge", judge_url="http://127.0.0.1:9/v1"),
    RunConfig(reward="judge", judge_key_variable="HF_TOKEN"),
]
each_elsewhere = pytest.mark.parametrize("config", ELSEWHERE, ids=lambda config: config.reward)


@pytest.fixture
def refused(monkeypatch):
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", "0")
    monkeypatch.setenv("HF_TOKEN", "very-secret")


@each_elsewhere
def test_settings_cannot_send_requests_or_keys_elsewhere(config, refused):
    assert any("This app takes" in sentence for sentence in obstacles(config, ask=False))
    with pytest.raises(StudioError, match="This app takes"):
        load_reward(config.reward, config=config)


@each_elsewhere
def test_a_run_folder_that_names_other_endpoints_is_not_opened(config, refused, tmp_path):
    folder = start(tmp_path / "run", config)  # as a run that was imported, or made when it was allowed
    with pytest.raises(InputError, match="This app takes"):
        reopen(folder.path)
    folder.adapter.mkdir()
    with pytest.raises(InputError, match="This app takes"):
        reevaluate(folder.path, None, None, 1)


def test_the_environment_s_own_endpoints_stay_usable(refused):
    config = RunConfig(
        reward="server:1,judge:1",
        server_url=os.environ["RSM_REWARD_SERVER"],
        judge_url=os.environ["RSM_JUDGE_URL"],
    )
    for each in (config, dataclasses.replace(config, server_url="", judge_url="")):
        assert obstacles(each, ask=False) == []
        load_reward(each.reward, config=each)


@pytest.mark.parametrize(("name", "variable"), [("server", "RSM_REWARD_SERVER"), ("judge", "RSM_JUDGE_URL")])
def test_an_address_of_the_environment_holds_no_key_either(name, variable, monkeypatch):
    monkeypatch.setenv(variable, "http://127.0.0.1:9/v1?key=very-secret")
    (told,) = obstacles(RunConfig(reward=name), ask=False)
    assert f"'{variable}' must end before any '?'" in told and "very-secret" not in told
    with pytest.raises(FaultError, match="must end before any"):
        load_reward(name)


def test_in_a_shell_settings_win(monkeypatch):
    with serving(pickled) as server, serving(judging) as judge:
        config = RunConfig(reward="server:1,judge:1", server_url=server.address, judge_url=judge.address)
        parts = load_reward(config.reward, config=config).parts
    assert [part.reward.endpoint.address for part in parts] == [
        server.address,
        f"{judge.address}/chat/completions",
    ]
    monkeypatch.delenv("RSM_REWARD_SERVER")
    with pytest.raises(FaultError, match="needs an address"):
        load_reward("server")
