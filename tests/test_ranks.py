"""Several processes on one run do what one process would do, and leave a failed rollout together."""

import contextlib
import re

import pytest
import torch

from tests.estimators.toy_model import WORDS, Smooth, ToyModel
from tests.test_loop import SCALED
from tests.threaded_ranks import side_by_side, threads_of
from tests.trainer_cases import EVERY, equal, follow, toy
from trainers.core.share import WHOLE, Share
from trainers.errors import FaultError, InputError
from trainers.interruption import StopRequested
from trainers.loop import Trainer
from trainers.ranks import ALONE, PeerGone, Ranks

SEVERAL_UPDATES = (
    "rsm_zeroth_order_flow",
    "awm",
    "diffusion_nft",
    "sqdf",
    "rsm_first_order_diffusion",
    "ppo",
)

pytestmark = pytest.mark.usefixtures("one_thread")


def crew(family, method, count, **settings):
    """Return the trainers of ``count`` processes, and that of one process with the same global batch."""
    alone = toy(family, method, **settings)
    ranks = threads_of(count)
    several = [
        Trainer(alone.config, ToyModel(family), Smooth(), WORDS, torch.float32, ranks=own) for own in ranks
    ]
    return alone, several


def advance_all(trainers):
    """Let the first lead one rollout and the others follow, as ``trainers.follower`` does."""

    def obey(trainer):
        name, _ = trainer.ranks.exchange()[0]
        assert name == "advance"
        return trainer.advance()

    return side_by_side([trainers[0].advance, *(lambda t=t: obey(t) for t in trainers[1:])])


def apart(one, other):
    """Largest difference between two policies' weights."""
    mine, theirs = one.policy.state(), other.policy.state()
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


@pytest.mark.parametrize(("family", "method"), EVERY)
def test_two_processes_learn_what_one_would(family, method):
    updates = 3 if method in SEVERAL_UPDATES else 1
    settings = {
        "prompts_per_update": 4,
        "updates_per_rollout": updates,
        "anchor_fraction": 0.6,
        "gradient_quantile": 0.7,
        "learning_rate": 1e-3,
        "kl_weight": SCALED.get(method, 0.01),
    }
    if method == "sqdf":
        settings |= {"replay_size": 20, "replay_share": 0.7}
    alone, several = crew(family, method, 2, **settings)
    moved = alone.policy.state()
    for _ in range(2):
        (record,), told = follow(alone, 1)[-1:], advance_all(several)
        for records in told:
            assert not isinstance(records, BaseException), records
            assert records[-1].reward_mean == pytest.approx(record.reward_mean, rel=1e-4)
            assert records[-1].loss == pytest.approx(record.loss, rel=1e-2, abs=1e-5)
            assert records[-1].images_sampled == record.images_sampled
            assert records[-1].zero_spread_groups == record.zero_spread_groups
    assert apart(alone, several[0]) < 1e-5
    assert equal(several[0].policy.state(), several[1].policy.state())
    assert not equal(alone.policy.state(), moved)
    assert several[0].progress.estimator == pytest.approx(alone.progress.estimator, rel=1e-4)


def test_more_processes_than_rows_of_a_step_are_harmless():
    settings = {"prompts_per_update": 4, "anchor_fraction": 0.3, "updates_per_rollout": 2}
    alone, several = crew("flow", "rsm_zeroth_order_flow", 4, learning_rate=1e-3, **settings)
    follow(alone, 1)
    advance_all(several)
    assert apart(alone, several[3]) < 1e-5
    assert several[1].policy.evaluations == several[0].progress.evaluations


def test_a_checkpoint_of_two_processes_goes_on_in_one_and_in_four():
    alone, several = crew("flow", "sqdf", 2, replay_size=20, learning_rate=1e-3, kl_weight=0.05)
    follow(alone, 2)
    advance_all(several)
    saved = several[0].checkpoint()
    _, four = crew("flow", "sqdf", 4, replay_size=20, learning_rate=1e-3, kl_weight=0.05)
    one = toy("flow", "sqdf", replay_size=20, learning_rate=1e-3, kl_weight=0.05)
    one.restore(saved)
    side_by_side([lambda: four[0].restore(saved), *(lambda t=t: taught(t) for t in four[1:])])
    follow(one, 1)
    advance_all(four)
    assert apart(alone, one) < 1e-5
    assert apart(alone, four[2]) < 1e-5


def taught(trainer):
    """Take a checkpoint that the first process hands out."""
    name, checkpoint = trainer.ranks.exchange()[0]
    assert name == "restore"
    trainer.restore(checkpoint)


class Breaks(Smooth):
    """A reward that fails in one process."""

    def __init__(self, error):
        self.error = error

    def __call__(self, images, prompts, metadata=None):
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (FaultError("The reward broke."), FaultError, "Process 2 of 2: .*The reward broke"),
        (ValueError("no such thing"), FaultError, "Process 2 of 2: .*no such thing"),
        (MemoryError(), MemoryError, "not enough memory"),
        (RuntimeError("CUDA out of memory"), MemoryError, "not enough memory"),
        (StopRequested(), StopRequested, ""),
    ],
)
def test_what_one_process_meets_ends_the_rollout_of_all(error, kind, words):
    _, several = crew("flow", "grpo", 2)
    several[1].reward = Breaks(error)
    before = several[0].policy.state()
    first, second = advance_all(several)
    assert isinstance(first, kind) and isinstance(second, type(error))
    assert re.search(words, str(first))
    assert equal(several[0].policy.state(), before)
    several[1].reward = Smooth()
    assert all(isinstance(records, list) for records in advance_all(several)), "the next rollout is in step"


def test_a_failure_after_the_last_message_is_told_with_the_next_order():
    ranks = threads_of(2)

    def leader():
        with pytest.raises(FaultError, match="Process 2 of 2: late"):
            ranks[0].order("advance")
        ranks[0].order("end")

    def follower():
        with pytest.raises(FaultError), ranks[1].together():
            raise FaultError("late")
        return list(ranks[1].orders())

    assert side_by_side([leader, follower]) == [None, []]


class Deserted(Ranks):
    """The first of two processes, whose other one was killed."""

    def __init__(self):
        super().__init__(0, 2)

    def _gather(self, message):
        with self._answers():
            raise RuntimeError("Connection closed by peer")


@pytest.mark.parametrize("met", [False, True])
def test_a_stop_request_beside_a_dead_process_is_its_death(met):
    ranks = Deserted()
    place = ranks.together() if met else contextlib.nullcontext()
    with pytest.raises(PeerGone, match="Another process of this run"), ranks.confirming_stop(), place:
        raise StopRequested


@pytest.mark.parametrize("late", [None, FaultError("late"), StopRequested(), MemoryError()])
def test_a_stop_request_beside_a_living_process_is_a_stop_request(late):
    ranks = threads_of(2)

    def leader():
        with pytest.raises(StopRequested), ranks[0].confirming_stop():
            raise StopRequested
        ranks[0].order("end")

    def follower():
        if late is not None:
            with pytest.raises(type(late)), ranks[1].together():
                raise late
        return [name for name, _ in ranks[1].orders()]

    assert side_by_side([leader, follower]) == [None, ["confirm"] if late is None else []]


def test_a_stop_request_of_the_only_process_is_a_stop_request():
    with pytest.raises(StopRequested), ALONE.confirming_stop():
        raise StopRequested


@pytest.mark.parametrize("total", [0, 1, 5, 8, 24])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_cover_a_batch_once_and_in_order(total, count):
    rows = [list(range(total))[Share(rank, count).rows(total)] for rank in range(count)]
    assert sum(rows, []) == list(range(total))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_shares_together_draw_what_one_process_draws():
    whole = WHOLE.normal((12, 2, 3), torch.Generator().manual_seed(5))
    parts = [Share(rank, 3).normal((4, 2, 3), torch.Generator().manual_seed(5)) for rank in range(3)]
    assert torch.equal(torch.cat(parts), whole)


def test_settings_that_cannot_be_shared_are_refused():
    with pytest.raises(InputError, match="24, which 5 processes cannot"):
        threads_of(5)[0].check_sharing(24)
    threads_of(4)[0].check_sharing(24)


class Elsewhere(torch.Tensor):
    """A tensor that remembers that it is on another device until it is fetched."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_checkpoints_travel_through_main_memory():
    """A tensor of the leader's GPU would arrive on the same GPU, whichever the other process works on."""
    _, several = crew("flow", "sqdf", 2, replay_size=20)
    trailing = crew("flow", "diffusion_nft", 2)[1][0]
    for trainer in (several[0], trailing):
        trainer.optimiser.zero_grad()
        for parameter in trainer.policy.parameters():
            parameter.grad = torch.ones_like(parameter)
        trainer.optimiser.step()
        saved = trainer.checkpoint()
        for tensors in (saved.lora, saved.trailing, saved.estimator, *saved.optimiser.values()):
            tensors |= {name: tensor.as_subclass(Elsewhere) for name, tensor in tensors.items()}
        told = []
        trainer.ranks.order = lambda name, payload, told=told: told.append(payload)
        trainer.restore(saved)
        (sent,) = told
        parts = [sent.lora, sent.trailing, sent.estimator, *sent.optimiser.values()]
        assert {type(tensor) for tensors in parts for tensor in tensors.values()} == {torch.Tensor}
    assert sent.trailing and sent.optimiser
