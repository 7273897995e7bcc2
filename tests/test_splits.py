"""From a rollout to its updates: random permutations, and what every branch weighs in its update."""

from dataclasses import replace

import pytest
import torch

from tests.trainer_cases import EVERY, toy
from trainers.ranks import ALONE
from trainers.updates import split_updates

pytestmark = pytest.mark.usefixtures("one_thread")


def split(trainer, updates, seed=0):
    """The rows of a rollout, and those of each of its updates."""
    rollout, _ = trainer._rollout()
    generator = torch.Generator().manual_seed(seed)
    return rollout.rows, split_updates(rollout.rows, trainer.objective.method, updates, generator, ALONE)


def places(rows):
    """What each row of a rollout is: its step and its state."""
    return {
        (row.step, *latents.flatten().tolist()): (number, place)
        for number, row in enumerate(rows)
        for place, latents in enumerate(row.latents)
    }


def taken(rows, part):
    """(entry, row, branch) of the rollout → its weight in an update that holds it."""
    where, found = places(rows), {}
    for row in part:
        for latents, weights in zip(row.latents, row.weights, strict=True):
            number, place = where[(row.step, *latents.flatten().tolist())]
            for branch, weight in enumerate(weights.tolist()):
                if weight:
                    assert (number, place, branch) not in found
                    found[number, place, branch] = weight
    return found


def samples_of(parts):
    """The trajectories of each update."""
    return [{int(number) for row in part for number in row.sample} for part in parts]


@pytest.mark.parametrize("branches", [(3, 3), (3, 9), (9, 3)])
def test_a_step_weighs_the_same_whatever_it_branches(branches):
    """Every branch of an update weighs K̄/K over their number, so each of two steps weighs a half."""
    trainer = toy("flow", "rsm_zeroth_order_flow", branches=branches, kl_weight=0.0)
    rows, (part,) = split(trainer, 1)
    weights = {}
    for row in part:
        weights[row.step] = weights.get(row.step, 0.0) + float(row.weights.sum())
    assert weights == pytest.approx({0: 0.5, 1: 0.5})
    mean = sum(branches) / 2
    for row in part:
        count = branches[row.step]
        assert row.weights.flatten().tolist() == pytest.approx(
            [mean / count / (4 * sum(branches))] * 4 * count
        )


@pytest.mark.parametrize("branches", [(2, 6), (5, 3)])
def test_branches_of_different_updates_of_a_step_weigh_alike_in_each(branches):
    """K̄/K over the branches that this update got, whichever steps they left."""
    rows, parts = split(toy("flow", "tempflow_grpo", branches=branches, kl_weight=0.0), 3)
    mean = sum(branches) / 2
    sizes = []
    for part in parts:
        found = taken(rows, part)
        sizes.append(len(found))
        expected = {key: mean / branches[key[0]] / len(found) for key in found}
        assert found == pytest.approx(expected, rel=1e-6)
    assert sum(sizes) == 4 * sum(branches)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("family", "method"), EVERY)
@pytest.mark.parametrize("updates", [1, 2, 3])
def test_the_updates_of_a_rollout_share_its_branches_without_repeats(family, method, updates):
    """A random permutation, cut: of trajectories where rows are steps of one, else of branches or paths."""
    trainer = toy(family, method, anchor_fraction=0.5, kl_weight=0.05)
    rows, parts = split(trainer, updates)
    count = sum(row.latents.shape[0] * row.branches for row in rows)
    if any(row.sample is not None for row in rows):
        samples = samples_of(parts)
        assert sum(map(len, samples)) == len(set.union(*samples)), "a trajectory is in one update"
        assert set.union(*samples) == set.union(*samples_of([rows]))
        assert max(map(len, samples)) - min(map(len, samples)) <= 1
        assert sum(len(row.latents) for part in parts for row in part) == count
        if updates > 1:
            others = [samples_of(split(trainer, updates, seed)[1]) for seed in (1, 2)]
            assert others != [samples, samples], "another generator splits otherwise"
        return
    found = [taken(rows, part) for part in parts]
    guided = [{key for key in part if not rows[key[0]].anchor_only} for part in found]
    anchors = [{key for key in part if rows[key[0]].anchor_only} for part in found]
    together = len(rows) if trainer.objective.method.drops_silent == "path" else 1
    for kind in (guided, anchors):
        assert sum(map(len, kind)) == len(set.union(*kind))
        assert max(map(len, kind)) - min(map(len, kind)) <= together
    assert sum(map(len, found)) == count, "every branch and every anchor once"
    if updates > 1:
        others = [taken(rows, part).keys() for part in split(trainer, updates, seed=1)[1]]
        assert others != [part.keys() for part in found], "another generator splits otherwise"


def test_a_permutation_mixes_steps_and_prompts():
    """A split by position would give the first update the first steps or prompts alone."""
    rows, parts = split(toy("flow", "rsm_zeroth_order_flow", branches=(6, 6), prompts_per_update=8), 2)
    for part in parts:
        found = taken(rows, part)
        assert {key[0] for key in found} >= {0, 1}
        assert len({key[1] for key in found if key[0] < 2}) == 8
        assert all(0 < sum(key[0] == step for key in found) < 48 for step in (0, 1))
    _, by_sample = split(toy("flow", "grpo", prompts_per_update=5, group_size=8), 2)
    for part in by_sample:
        assert len(part[0].prompt_index.unique()) == 5


def silenced(trainer):
    """Rows of a rollout in which root 1 at step 0 and roots 0 to 2 at step 1 have no advantages."""
    rollout, _ = trainer._rollout()
    rows = [replace(row, advantages=row.advantages.clone()) for row in rollout.rows]
    rows[0].advantages[1] = 0.0
    rows[1].advantages[:3] = 0.0
    return rows


@pytest.mark.parametrize(
    ("kind", "roots"),
    [
        ("branch", {(0, 0), (0, 2), (0, 3), (1, 3)}),
        ("path", {(0, 0), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)}),
        ("none", {(step, root) for step in range(2) for root in range(4)}),
    ],
)
def test_silent_branches_leave_the_mean_as_the_row_drops_them(kind, roots):
    """They weigh nothing, and the others weigh as if they had not been there.

    ``path`` drops a branch where no step has an advantage for it: that of root 1 alone.
    """
    trainer = toy("flow", "rsm_zeroth_order_flow", branches=(3, 3), kl_weight=0.0)
    rows = silenced(trainer)
    method = replace(trainer.objective.method, drops_silent=kind)
    (part,) = split_updates(rows, method, 1, torch.Generator().manual_seed(0), ALONE)
    found = taken(rows, part)
    assert {key[:2] for key in found} == roots
    assert len(found) == 3 * len(roots)
    assert found == pytest.approx(dict.fromkeys(found, 1 / len(found)))


def test_silent_branches_of_one_step_are_dropped_after_the_split_and_not_before_it():
    """RSM's program masks them in their micro-batch: an update's share of the others is random."""
    trainer = toy("flow", "rsm_zeroth_order_flow", branches=(3, 3), kl_weight=0.0)
    rows = silenced(trainer)
    for seed in range(5):
        split_alike = [
            split_updates(
                rows,
                replace(trainer.objective.method, drops_silent=kind),
                2,
                torch.Generator().manual_seed(seed),
                ALONE,
            )
            for kind in ("branch", "none")
        ]
        for dropped, kept in zip(*split_alike, strict=True):
            speaking = {
                key for key in taken(rows, kept) if float(rows[key[0]].advantages[key[1], key[2]]) != 0.0
            }
            assert taken(rows, dropped).keys() == speaking


SIXTEEN = [("grpo", {"group_size": 4}), ("tempflow_grpo", {"branches": (4, 4, 4)})]


def splits_with_silence(method, settings, quiet):
    """For four seeds, what each of two updates holds when the first ``quiet`` of 16 have no advantage."""
    trainer = toy("flow", method, prompts_per_update=4, kl_weight=0.0, **settings)
    rollout, _ = trainer._rollout()
    rows = [replace(row, advantages=row.advantages.clone()) for row in rollout.rows]
    for row in rows:
        assert row.advantages.numel() == 16
        row.advantages.view(-1)[:quiet] = 0.0
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        parts = split_updates(rows, trainer.objective.method, 2, generator, ALONE)
        yield len(rows), [taken(rows, part) for part in parts]


@pytest.mark.parametrize(("method", "settings"), SIXTEEN)
@pytest.mark.parametrize("quiet", [0, 4, 8, 14])
def test_silent_trajectories_and_paths_leave_before_the_split(method, settings, quiet):
    """Flow-GRPO's and TempFlow's programs shuffle what is left, so that the updates are of one size."""
    branches = 1 if method == "grpo" else 4
    for steps, parts in splits_with_silence(method, settings, quiet):
        one, two = ({key[1:] for key in part} for part in parts)
        assert not one & two
        assert one | two == {divmod(number, branches) for number in range(quiet, 16)}
        assert len(one) == len(two) == (16 - quiet) // 2
        for part in parts:
            assert part == pytest.approx(dict.fromkeys(part, 1 / len(part))) and len(part) == steps * len(one)


@pytest.mark.parametrize(("method", "settings"), SIXTEEN)
def test_no_update_is_empty_where_fewer_speak_than_there_are_updates(method, settings):
    for steps, parts in splits_with_silence(method, settings, 15):
        assert sorted(map(len, parts)) == [steps, 8 * steps], "the one that speaks, and a silent half"


@pytest.mark.parametrize("method", ["rsm_zeroth_order_flow", "grpo"])
def test_an_update_in_which_nothing_speaks_keeps_its_rows(method):
    """They have no pull, but the row's KL still holds the policy there."""
    trainer = toy("flow", method, kl_weight=0.0)
    rollout, _ = trainer._rollout()
    rows = [replace(row, advantages=torch.zeros_like(row.advantages)) for row in rollout.rows]
    (part,) = split_updates(rows, trainer.objective.method, 1, torch.Generator(), ALONE)
    found = taken(rows, part)
    assert len(found) == sum(row.latents.shape[0] * row.branches for row in rows)
    assert found == pytest.approx(dict.fromkeys(found, 1 / len(found)))


def test_paths_stay_together_where_they_are_dropped_together():
    """TempFlow's program shuffles rows that hold the k-th branch of a root at every step."""
    rows, parts = split(toy("flow", "tempflow_grpo", branches=(4, 4, 4), prompts_per_update=4), 2)
    paths = [{key[1:] for key in taken(rows, part)} for part in parts]
    assert paths[0] | paths[1] == {(root, branch) for root in range(4) for branch in range(4)}
    assert len(paths[0]) == len(paths[1]) == 8
    assert all(len(taken(rows, part)) == 24 for part in parts)
    _, branched = split(toy("flow", "rsm_zeroth_order_flow", branches=(4, 4, 4), kl_weight=0.0), 2)
    steps = [
        {(row.step, *tensor.flatten().tolist()) for row in part for tensor in row.noise[:, 0]}
        for part in branched
    ]
    assert steps[0] & steps[1], "elsewhere the branches of one state part"


def test_anchors_are_a_mean_of_their_own_times_the_mean_branching_where_all_rows_are_held():
    for method, family, scale in (
        ("rsm_zeroth_order_flow", "flow", 4.5),
        ("rsm_zeroth_order_diffusion", "diffusion", 1.0),
    ):
        trainer = toy(family, method, branches=(0, 3, 6), anchor_fraction=0.5, kl_weight=0.1, rollout_steps=6)
        rows, parts = split(trainer, 2)
        for part in parts:
            held = [row for row in part if row.anchor_only]
            count = sum(len(row.latents) for row in held)
            assert count > 0
            for row in held:
                assert row.weights.flatten().tolist() == pytest.approx([scale / count] * len(row.latents))
