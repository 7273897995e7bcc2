"""Looks at held-out prompts during training: always the same pictures, and no change to what is learned."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.e2e.shell import lines, read
from tests.faults.sessions import ADAPTER, same, session, tiny_config
from trainers.evaluate import plan
from trainers.interruption import Interruption
from trainers.probes import Probes, probe_items
from trainers.run_folder import RunFolder

PROBED = {"probe_every": 1, "probe_prompts": 2, "max_updates": 3}


def timeless(path):
    return [{k: v for k, v in line.items() if k not in ("seconds", "cost")} for line in lines(path)]


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    path = tmp_path_factory.mktemp("probed") / "run"
    assert session(path, tiny_config(**PROBED)).run().state == "succeeded"
    return path


def test_prompts_are_spread_evenly_with_the_comparison_s_own_seeds():
    items = plan([f"prompt {i}" for i in range(10)], 10, 4, seed=3)
    chosen = probe_items(items, 4, 5)
    assert [item.prompt for item in chosen[::2]] == [f"prompt {i}" for i in (0, 2, 4, 6, 8)]
    assert chosen[0] == items[0] and chosen[1] == items[1] and chosen[2] == items[8]
    assert len(probe_items(items, 4, 99)) == 20, "no more than the comparison has"


def test_a_look_is_recorded_before_training_and_after_every_few_updates(probed):
    found = lines(probed / "probes.jsonl")
    assert [line["step"] for line in found] == [0, 1, 2]
    for line in found:
        assert len(line["reward"]) == 4 and len(line["pictures"]) == len(line["prompts"]) == 2
        assert all(len(values) == 4 for values in line["others"].values()) and line["others"]
        assert line["cost"] > 0 and line["diversity"] > 0
        for name in line["pictures"]:
            with Image.open(probed / name) as picture:
                assert picture.size == (64, 64)


def test_the_first_look_shows_the_comparison_s_own_pictures(probed):
    first, before = lines(probed / "probes.jsonl")[0], lines(probed / "samples" / "before.jsonl")
    told = [line["reward"] for line in before if line["prompt"] in first["prompts"]]
    assert first["reward"] == pytest.approx(told, abs=0.02), "one precision's rounding apart"
    assert first["prompts"] == list(dict.fromkeys(line["prompt"] for line in before))[::2][:2]


def test_looks_change_nothing_that_is_learned(probed, tmp_path):
    plain = tmp_path / "plain"
    assert session(plain, tiny_config(**PROBED | {"probe_every": 0})).run().state == "succeeded"
    assert not (plain / "probes.jsonl").exists()
    assert (plain / ADAPTER).read_bytes() == (probed / ADAPTER).read_bytes()
    one, other = read(plain / "report.json"), read(probed / "report.json")
    for key in ("before", "after", "paired", "drift", "images_sampled", "network_evaluations"):
        assert one[key] == other[key], key


def test_a_resumed_run_looks_at_the_same_pictures(probed, tmp_path):
    cut = tmp_path / "cut"

    class Ending(Interruption):
        """Ends the session once, in the look after the first update."""

        def check(self):
            if (cut / "metrics.jsonl").exists() and len(lines(cut / "metrics.jsonl")) == 1:
                self._deadline = 0.0
            super().check()

    first = session(cut, tiny_config(**PROBED), interruption=Ending(RunFolder(cut)))
    assert first.run().state == "interrupted"
    assert [line["step"] for line in lines(cut / "probes.jsonl")] == [0]
    (cut / "probes.jsonl").write_text(
        (cut / "probes.jsonl").read_text() + json.dumps({"step": 2, "reward": []}) + "\n"
    )
    assert session(cut).run().state == "succeeded"
    same(cut, probed)
    assert timeless(cut / "probes.jsonl") == timeless(probed / "probes.jsonl")


def test_a_stop_in_a_look_keeps_what_was_learned(tmp_path):
    path = tmp_path / "run"
    folder = RunFolder(path)

    class Stopping(Interruption):
        def check(self):
            if folder.metrics.exists() and len(folder.read_metrics()) == 1 and not self.finishing:
                folder.request_stop()
            super().check()

    status = session(path, tiny_config(**PROBED), interruption=Stopping(folder)).run()
    assert status.state == "stopped" and status.updates == len(folder.read_metrics()) == 1
    assert folder.read_report()["updates"] == 1


def test_looks_draw_with_the_weights_that_are_saved(tmp_path, monkeypatch):
    """With an average of the weights, both are the average and neither the trained weights."""
    draw, seen, trainers = Probes._draw, [], []

    def drawn(policy, state, again):
        """Pictures of a policy that has these weights and no averages."""
        kept, averages = policy.state(), policy._averages
        policy._averages = {}
        policy.load_state(state)
        pictures = again()
        policy._averages = averages
        policy.load_state(kept)
        return pictures

    def watched(probes, trainer):
        policy, pictures = trainer.policy, draw(probes, trainer)
        states = policy.shipped_state(), policy.state()
        seen.append([torch.equal(pictures, drawn(policy, s, lambda: draw(probes, trainer))) for s in states])
        trainers.append(trainer)
        return pictures

    monkeypatch.setattr(Probes, "_draw", watched)
    settings = PROBED | {"ema_decay": 0.6, "ema_every": 2, "updates_per_rollout": 2, "learning_rate": 0.02}
    path = tmp_path / "run"
    assert session(path, tiny_config(**settings | {"max_updates": 6})).run().state == "succeeded"
    assert [line["step"] for line in lines(path / "probes.jsonl")] == [0, 2, 4]
    assert seen == [[True, True], [True, False], [True, False]]
    policy = trainers[0].policy
    saved = load_file(path / ADAPTER)
    shipped, trained = policy.shipped_state(), policy.state()
    assert len(saved) == len(shipped)
    for name, tensor in shipped.items():
        scale = policy.alpha / policy.rank if "lora_B" in name else 1.0  # it is saved with alpha = rank
        assert torch.equal(saved[f"{policy.model.network_name}.{name}"], tensor * scale)
    assert not all(torch.equal(tensor, trained[name]) for name, tensor in shipped.items())
