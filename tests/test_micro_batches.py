"""Rows of several steps in one network call: what is packed together, and how often the network is asked."""

import math

import pytest
import torch

from tests.core.toys import SHAPE, randn
from tests.trainer_cases import follow, toy
from trainers.estimators.contract import StepRows
from trainers.micro_batches import pack


def rows_of(step, count, guided=True):
    return StepRows(
        step,
        randn(count, *SHAPE, seed=step),
        torch.arange(count) + 10 * step,
        noise=randn(count, 2, *SHAPE, seed=50 + step) if guided else None,
        advantages=randn(count, 2, seed=70 + step) if guided else None,
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 64])
def test_every_row_is_packed_once_in_order_and_no_call_is_too_large(size):
    rows = [rows_of(0, 3), rows_of(1, 5), rows_of(2, 0), rows_of(3, 2, guided=False)]
    batches = pack(rows, size)
    assert [len(batch.latents) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert len(batches) == math.ceil(10 / size) and 1 <= len(batches[-1].latents) <= size
    for name in ("latents", "prompt_index"):
        packed = torch.cat([getattr(batch, name) for batch in batches])
        assert torch.equal(packed, torch.cat([getattr(step, name) for step in rows]))
    parts = [part for batch in batches for part in batch.parts]
    assert [part.step for part in parts for _ in part.latents] == [0] * 3 + [1] * 5 + [3] * 2
    noise = torch.cat([part.noise for part in parts if not part.anchor_only])
    assert torch.equal(noise, torch.cat([rows[0].noise, rows[1].noise]))
    assert pack(rows[2:3], size) == []


def test_a_micro_batch_knows_each_row_s_step_and_hands_back_each_step_s_values():
    whole, steps = pack([rows_of(0, 2), rows_of(3, 2, guided=False)], 8), pack([rows_of(1, 2)], 8)
    (mixed,), (alone,) = whole, steps
    assert mixed.step.tolist() == [0, 0, 3, 3] and alone.step == 1
    assert not mixed.anchor_only and pack([rows_of(3, 2, guided=False)], 8)[0].anchor_only
    first, second = mixed.split(mixed.latents)
    assert torch.equal(first, mixed.parts[0].latents) and torch.equal(second, mixed.parts[1].latents)
    assert mixed.split(None) == [None, None]
    apart = pack([rows_of(0, 2), rows_of(3, 2)], 8, mixed=False)
    assert [batch.step for batch in apart] == [0, 3]


@pytest.mark.parametrize("method", ["grpo", "rsm_first_order_flow", "rsm_zeroth_order_flow", "awm"])
@pytest.mark.parametrize("size", [5, 64])
def test_an_update_asks_the_network_no_more_often_than_it_must(method, size, monkeypatch):
    trainer = toy("flow", method, micro_batch=size, updates_per_rollout=1)
    asked = []
    output = trainer.policy.output

    def counted(latents, *where):
        if torch.is_grad_enabled():
            asked.append(len(latents))
        return output(latents, *where)

    monkeypatch.setattr(trainer.policy, "output", counted)
    follow(trainer, 1)
    assert len(asked) == math.ceil(sum(asked) / size) and sum(asked) == trainer.rows_trained
