"""The bench's figures hang together."""

import json

import pytest
import torch
from peft.tuners.lora import LoraLayer

from trainers.bench import _fitting, _undress, bench, table
from trainers.cli import main
from trainers.loop import Trainer
from trainers.models.memory import Footprint
from trainers.models.random_weights import SIZES, random_pipeline
from trainers.models.sizes import FULL
from trainers.models.tiny_sizes import TINY
from trainers.phases import OWN
from trainers.presets import build_config
from trainers.rewards import load_reward

LEAN = Footprint(gradient_checkpointing=True, one_network=True)


@pytest.fixture(scope="module")
def result():
    """The default run with a quarter of its prompts; what the counts below follow from is named."""
    config = build_config(
        "tiny-flow",
        "rsm_zeroth_order_flow",
        "shapes",
        {
            "threads": 1,
            "prompts_per_update": 6,
            "dtype": "float32",
            "rollout_steps": 6,
            "branches": "0,16",
            "anchor_fraction": 0.25,
            "kl_weight": 0.05,
            "updates_per_rollout": 2,
        },
    )
    return bench(config, 1)


def test_the_engine_itself_is_what_its_own_phases_took(result):
    # How small a part of training it is, `python -m trainers bench` says: a timing is no test.
    assert result["overhead_share"] == sum(result["shares"][name] for name in OWN)
    assert 0 < result["overhead_share"] < 1


def test_the_shares_are_those_of_one_whole(result):
    assert sum(result["shares"].values()) == pytest.approx(1.0)
    assert result["shares"]["rollout_network"] > result["shares"]["training_forward"] > 0
    assert result["shares"]["reward_gradient"] == 0.0


def test_counts_are_those_of_the_settings(result):
    # 6 roots: 5 steps of their own for the anchors, 16 branches over the last 4 steps.
    sampled = result["rollout_rows_per_second"] * result["rollout_seconds"]
    assert sampled == pytest.approx(6 * (5 + 16 * 4))
    # An anchor for every fourth of 96 branches: all states at the 4 steps that have some. Half of them are in
    # each of two updates, and so are the 6 states that branched, with half of their branches.
    trained = result["rows_trained_per_second"] * result["update_seconds"]
    assert trained == pytest.approx(6 + 24 / 2)
    assert result["images_sampled_per_second"] * result["rollout_seconds"] == pytest.approx(96)
    per_update = result["rollout_seconds"] / 2 + result["update_seconds"]
    assert result["seconds_per_update"] == pytest.approx(per_update)


def test_ratios_are_to_the_plain_pipeline_and_the_bare_network(result):
    assert result["rollout_to_plain"] == pytest.approx(
        result["rollout_rows_per_second"] / result["plain_pipeline_rows_per_second"]
    )
    assert result["bare_to_training"] == pytest.approx(
        result["bare_training_rows_per_second"] / result["rows_trained_per_second"]
    )
    assert result["peak_memory_mb"] > 100
    lines = table(result).splitlines()
    assert len(lines) == len(result) - 1 + len(result["shares"])
    assert json.loads(json.dumps(result)) == result


def test_a_baseline_takes_the_batch_that_fits():
    def timed(batch, limit):
        if batch > limit:
            raise RuntimeError("CUDA out of memory.")
        return 10.0 * batch

    assert _fitting(16, lambda batch: timed(batch, 16)) == (160.0, 16)
    assert _fitting(16, lambda batch: timed(batch, 5)) == (40.0, 4)
    assert _fitting(16, lambda batch: timed(batch, 0)) == (None, 0)


def test_the_baselines_have_no_lora_and_keep_their_activations(one_thread):
    model = random_pipeline("tiny-sd3", footprint=LEAN)
    config = build_config("tiny-flow", "grpo", "brightness", {"compile": "regional"})
    trainer = Trainer(config, model, load_reward("brightness"), ["a"], torch.float32)
    network = model.network
    assert network is trainer.policy.network and network.is_gradient_checkpointing
    assert any(module._compiled_call_impl for module in network.modules())
    _undress(trainer, torch.float32)
    assert not network.is_gradient_checkpointing
    assert not any(isinstance(module, LoraLayer) for module in network.modules())
    assert not any(module._compiled_call_impl for module in network.modules())


def test_a_model_and_random_weights_exclude_each_other(capsys):
    words = ["bench", "--model", "tiny-flow", "--random-weights", "sd15", "--json"]
    assert main(words) == 2
    assert "takes the place of '--model'" in capsys.readouterr().err


QUICK = {"prompts_per_update": 2, "group_size": 2, "rollout_steps": 3, "threads": 1, "memory": 16}


@pytest.mark.parametrize("name", [*FULL, "tiny-sd21"])
def test_every_architecture_is_timed_here_in_its_tiny_size(name, capsys):
    words = ["bench", "--random-weights", name, "--json", "--updates", "1", "--set", "branches=2,2"]
    assert main(words + [f"--set={key}={value}" for key, value in QUICK.items()]) == 0
    timed = json.loads(capsys.readouterr().out)
    built = timed["model"].removeprefix("random:")
    assert built in TINY and SIZES[built].pipeline_class == SIZES[name].pipeline_class
    assert timed["rows_trained_per_second"] > 0 and timed["rollout_to_plain"] > 0


def test_a_wrong_architecture_is_refused_with_the_names_there_are(capsys):
    assert main(["bench", "--random-weights", "sd5"]) == 2
    told = capsys.readouterr().err
    assert "Unknown random weights 'sd5'" in told and "sd35-medium" in told
