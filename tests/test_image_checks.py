"""Images that are not finite or black are the model's fault: named as such wherever they come up, whatever
the reward.
"""

import pytest
import torch

from tests.faults.sessions import session, tiny_config
from trainers.errors import FaultError
from trainers.image_checks import check_decoded, check_finite, check_not_black
from trainers.models.base import PipelineModel
from trainers.run_folder import RunFolder

REWARDS = ("brightness", "jpeg_compressibility", "shapes")


def spoiled(monkeypatch, method, change):
    """Let a verb of every model change what it returns."""
    whole = getattr(PipelineModel, method)
    monkeypatch.setattr(PipelineModel, method, lambda *args, **named: change(whole(*args, **named)))


def one_bad(images, value=float("nan")):
    images = images.clone()
    images[0, 0, 0, 0] = value
    return images


@pytest.mark.parametrize("reward", REWARDS)
def test_the_base_model_is_named_before_any_reward_scores(reward, tmp_path, monkeypatch):
    spoiled(monkeypatch, "sample", one_bad)
    with pytest.raises(FaultError, match="base model drew images that are not finite .* autoencoder"):
        session(tmp_path / "run", tiny_config("grpo", reward)).run()
    assert not (tmp_path / "run" / "samples" / "before.jsonl").exists()


@pytest.mark.parametrize("reward", REWARDS)
def test_images_that_are_black_throughout_are_named(reward, tmp_path, monkeypatch):
    spoiled(monkeypatch, "sample", torch.zeros_like)
    with pytest.raises(FaultError, match="All 8 images of the base model are black"):
        session(tmp_path / "run", tiny_config("grpo", reward)).run()


@pytest.mark.parametrize(
    ("estimator", "reward"), [("grpo", "jpeg_compressibility"), ("vgg_flow", "brightness")]
)
def test_a_rollout_s_decoder_is_named_and_not_the_reward(estimator, reward, tmp_path, monkeypatch):
    spoiled(monkeypatch, "decode", one_bad)
    monkeypatch.setattr("trainers.first_checks.sampler_sentence", lambda *_: "")
    with pytest.raises(
        FaultError, match="At update 1: .* images of a rollout are not finite.*autoencoder"
    ) as told:
        session(tmp_path / "run", tiny_config(estimator, reward)).run()
    assert "reward" not in str(told.value).lower()
    assert RunFolder(tmp_path / "run").status().state == "failed"


def test_a_trained_model_is_told_from_the_base(tmp_path, monkeypatch):
    whole = PipelineModel.sample
    monkeypatch.setattr(
        PipelineModel,
        "sample",
        lambda model, *args, **named: (
            one_bad(whole(model, *args, **named)) if model.lora_names() else whole(model, *args, **named)
        ),
    )
    monkeypatch.setattr("trainers.first_checks.sampler_sentence", lambda *_: "")
    with pytest.raises(FaultError, match="trained model drew images that are not finite.*learning_rate"):
        session(tmp_path / "run", tiny_config("grpo", "brightness")).run()


def test_network_and_decoder_are_told_apart():
    images, latents = one_bad(torch.rand(2, 3, 8, 8)), torch.rand(2, 4, 2, 2)
    with pytest.raises(FaultError, match="1 of 2 images .*autoencoder"):
        check_decoded(images, latents)
    with pytest.raises(FaultError, match="network's own states"):
        check_decoded(images, one_bad(latents, float("inf")))
    for good in (torch.rand(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)):
        check_decoded(good, one_bad(latents))  # what is decoded soundly is scored
        check_finite(good)
    check_not_black(torch.tensor([[[[0]]], [[[1]]]], dtype=torch.uint8))
