"""Every random draw follows from the run's seed, a purpose and a number."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.seeds import generator_for, prompt_batch, seed_for


def test_seeds_depend_on_all_three_arguments():
    triples = [(s, p, n) for s in (0, 1, 11) for p in ("latents", "transitions") for n in (0, 1, 11, 111)]
    found = {seed_for(*triple) for triple in triples}
    assert len(found) == len(triples)
    assert all(0 <= seed < 2**63 for seed in found)


def test_seeds_do_not_change_from_version_to_version():
    """Stored runs are resumed and compared by these numbers: half the first 8 bytes of a SHA-256."""
    assert seed_for(0, "latents") == seed_for(0, "latents", 0) == 2215228416540736069


def test_generators_are_fresh_and_leave_the_global_one_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (torch.randn(4, generator=generator_for(3, "steps", 2)) for _ in range(2))
    prompt_batch(0, 3, 10, 4)
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.randn(4, generator=generator_for(4, "steps", 2)))
    assert torch.equal(torch.get_rng_state(), before)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(1, 12), st.integers(1, 30))
def test_prompts_are_passes_over_the_whole_set(seed, count, size):
    """Rollouts laid end to end are whole shuffled passes: no prompt is drawn twice before all were drawn."""
    rollouts = -(-3 * count // size)
    drawn = [number for rollout in range(rollouts) for number in prompt_batch(seed, rollout, count, size)]
    assert len(drawn) == rollouts * size
    for start in range(0, len(drawn) - count + 1, count):
        assert sorted(drawn[start : start + count]) == list(range(count))


def test_passes_are_shuffled_anew():
    passes = [tuple(prompt_batch(0, rollout, 20, 20)) for rollout in range(4)]
    assert len(set(passes)) == 4
    assert passes[0] != tuple(range(20))
    assert tuple(prompt_batch(1, 0, 20, 20)) not in passes
