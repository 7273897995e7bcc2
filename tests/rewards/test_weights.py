"""Where published weights are looked for, and the sentence for each way in which they cannot be had."""

import pytest

from tests.rewards.servers import Reply, serving
from trainers import reachable
from trainers.errors import FaultError
from trainers.rewards import REWARDS
from trainers.rewards.weights import CLIP_LARGE, Weights, size_words

PART = Weights("somebody/something", ("config.json", "model.safetensors"), "MIT", 1500)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv("RSM_WEIGHTS", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(reachable, "_answers", {})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_the_own_folder_counts_only_when_it_is_complete(nowhere, monkeypatch):
    monkeypatch.setenv("RSM_WEIGHTS", str(nowhere))
    folder = nowhere / "somebody" / "something"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert PART.here() is None
    (folder / "model.safetensors").write_bytes(b"x")
    assert PART.here() == PART.folder() == folder and PART.obstacle() is None


def test_the_hub_s_cache_counts(nowhere):
    snapshot = nowhere / "hub" / "models--somebody--something" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    refs = nowhere / "hub" / "models--somebody--something" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    assert PART.here() is None
    (snapshot / "model.safetensors").write_bytes(b"x")
    assert PART.here() == snapshot


def test_offline_and_unreachable_are_told_with_the_way_out(monkeypatch):
    with serving(lambda *_: Reply()) as hub:
        address = hub.address
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert PART.obstacle() is None
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        sentence = PART.obstacle(ask=False)
        assert "(1.5 GB) are not on this machine and HF_HUB_OFFLINE" in sentence and "RSM_WEIGHTS" in sentence
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(reachable, "_answers", {})
    assert PART.obstacle(ask=False) is None
    assert f"{address} cannot be reached" in PART.obstacle()
    with pytest.raises(FaultError, match="somebody/something .* cannot be reached"):
        PART.folder()


def test_a_hub_that_refuses_is_told(monkeypatch, nowhere):
    """The Hub's client reads its endpoint once, so it is asked through its own argument here."""
    import huggingface_hub

    real = huggingface_hub.snapshot_download
    with serving(lambda *_: Reply(status=404)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setattr(
            huggingface_hub,
            "snapshot_download",
            lambda repo, **given: real(repo, endpoint=hub.address, **given),
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        with pytest.raises(FaultError, match="somebody/something .* downloading them failed"):
            PART.folder()


def test_an_answer_is_remembered_for_a_while(monkeypatch):
    asked = []
    monkeypatch.setattr(reachable, "_ask", lambda address: asked.append(address) or reachable.ANSWERS)
    assert (
        reachable.reachable("http://a")
        and reachable.reachable("http://a")
        and reachable.reachable("http://b")
    )
    assert asked == ["http://a", "http://b"]


def test_every_weight_is_told_in_obstacles_when_it_is_not_there(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for spec in REWARDS:
        found = spec.obstacles(None, ask=False) if not spec.check else []
        assert len(found) == len(spec.weights), spec.name
    assert CLIP_LARGE.repo in REWARDS.get("clip_score").obstacles(None)[0]


@pytest.mark.parametrize(("size", "words"), [(4, "4 MB"), (999, "999 MB"), (1711, "1.7 GB")])
def test_sizes_are_written_in_the_unit_that_fits(size, words):
    assert size_words(size) == words
