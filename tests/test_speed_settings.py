"""What makes training quicker or smaller changes nothing that is learned."""

import contextlib
from dataclasses import replace

import pytest
import torch
from diffusers import FluxPipeline
from torch._dynamo import config as dynamo
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.estimators.toy_model import ToyModel
from tests.trainer_cases import EVERY, follow, timeless, toy
from trainers.errors import InputError
from trainers.loop import Trainer
from trainers.models.base import load_model
from trainers.models.conditions import Conditions
from trainers.models.configured import configured
from trainers.models.flux import _places as places_sent
from trainers.models.memory import Footprint
from trainers.models.random_weights import random_pipeline
from trainers.models.sdxl import _sizes as sizes_sent
from trainers.models.tiny_sizes import TINY
from trainers.policy import Policy, _compile
from trainers.presets import build_config
from trainers.ranks import ALONE
from trainers.rewards import load_reward
from trainers.updates import split_updates

PROMPTS = ["a red circle", "two blue squares"]

pytestmark = pytest.mark.usefixtures("one_thread")


def shipped(name, method, **settings):
    base = {"rollout_steps": 3, "branches": "3,3", "prompts_per_update": 2, "dtype": "float32"}
    settings = base | {"updates_per_rollout": 1} | settings
    config = build_config(name, method, "brightness", settings)
    return Trainer(config, load_model(configured(config)), load_reward("brightness"), PROMPTS, torch.float32)


@pytest.mark.parametrize("name", ["tiny-flow", "tiny-diffusion"])
def test_gradient_checkpointing_learns_the_same(name):
    method = f"rsm_zeroth_order_{name.removeprefix('tiny-')}"
    kept, recomputed = (shipped(name, method, gradient_checkpointing=value) for value in ("off", "on"))
    assert recomputed.policy.network.is_gradient_checkpointing
    assert not kept.policy.network.is_gradient_checkpointing
    lines = [follow(trainer, 2)[-1] for trainer in (kept, recomputed)]
    assert lines[1].ratio_mean == 1.0
    assert lines[1].loss == pytest.approx(lines[0].loss, rel=1e-5)
    pairs = zip(kept.policy.parameters(), recomputed.policy.parameters(), strict=True)
    assert max(float((one - other).detach().abs().max()) for one, other in pairs) < 1e-6


@pytest.mark.parametrize("setting", ["gradient_checkpointing", "compiled"])
def test_a_network_that_cannot_do_it_is_refused_in_words(setting):
    model = ToyModel("flow")
    if setting == "gradient_checkpointing":
        model.footprint = Footprint(gradient_checkpointing=True)
    with pytest.raises(InputError, match="ToyDenoiser"):
        Policy(model, 2, 4.0, 0, compiled=setting == "compiled")


@pytest.fixture
def no_silent_limit():
    """Lets the compiler fail where it would stop compiling and say nothing, and puts its limits back."""
    kept = (dynamo.recompile_limit, dynamo.accumulated_recompile_limit)
    torch._dynamo.reset()
    with dynamo.patch(fail_on_recompile_limit_hit=True):
        yield
    dynamo.recompile_limit, dynamo.accumulated_recompile_limit = kept
    torch._dynamo.reset()


class Widening(torch.nn.Module):
    """Blocks of one class and many widths, as those of a UNet."""

    class Block(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.inner = torch.nn.Linear(width, width)

        def forward(self, values):
            return torch.tanh(self.inner(values))

    _repeated_blocks = ("Block",)

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(Widening.Block(width) for width in range(3, 15))

    def forward(self, rows):
        return [block(torch.zeros(rows, block.inner.in_features)) for block in self.blocks]


@pytest.mark.parametrize("raised", [True, False])
def test_every_kind_of_block_is_compiled(raised, no_silent_limit):
    network = Widening()
    _compile(network, backend="eager")
    if not raised:
        dynamo.recompile_limit = 8
    with pytest.raises(FailOnRecompileLimitHit) if not raised else contextlib.nullcontext():
        for rows in (4, 2, 3, 1):
            network(rows)
            with torch.no_grad():
                network(rows)


@pytest.mark.slow
def test_compiled_blocks_learn_the_same(no_silent_limit):
    """The compiler fuses operations, so the last digits differ; the first ratio is 1 all the same."""
    plain, compiled = (
        shipped("tiny-flow", "rsm_zeroth_order_flow", compile=value) for value in ("off", "regional")
    )
    lines = [follow(trainer, 2)[-1] for trainer in (plain, compiled)]
    assert lines[1].ratio_mean == 1.0 and lines[1].clip_fraction == 0.0
    assert lines[1].reward_mean == pytest.approx(lines[0].reward_mean, rel=1e-4)
    assert lines[1].grad_norm == pytest.approx(lines[0].grad_norm, rel=1e-2)


class ScalarReads(TorchDispatchMode):
    """Counts how often a value is read out of a tensor, for which a GPU would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # The noise levels are float64 numbers of the CPU wherever the networks are.
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype != torch.float64:
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("family", "method"), EVERY[::5])
def test_an_update_waits_for_the_device_once_however_many_micro_batches_it_has(family, method):
    counts = []
    for size in (1, 64):  # rows at once
        trainer = toy(family, method, micro_batch=size)
        rollout, task = trainer._rollout()
        row, source = trainer.objective.method, torch.Generator().manual_seed(0)
        part = split_updates(rollout.rows, row, 2, source, ALONE)[0]
        with ScalarReads() as reads:
            trainer._update(task, part, None)
        counts.append(reads.count)
    # The gradient's norm, and Adam's own step counters, which are numbers of the CPU.
    assert counts[0] == counts[1] == 1 + len(trainer.policy.parameters())


@pytest.mark.parametrize(
    ("family", "method"), [("flow", "grpo"), ("diffusion", "rsm_zeroth_order_diffusion")]
)
def test_sampling_never_waits_for_the_device(family, method):
    trainer = toy(family, method, micro_batch=2)
    rows = trainer.conditions.select(torch.zeros(8, dtype=torch.long))
    latents = torch.zeros(8, *trainer.policy.model.latent_shape)
    with ScalarReads() as reads:
        for step in range(trainer.schedule.steps):
            latents = latents + trainer.policy.sample_output(latents, trainer.schedule, step, rows)
    assert reads.count == 0


class HostCopies(TorchDispatchMode):
    """Counts what is sent to the device, whose part the meta device plays: it has shapes but no values."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.count += any(one.is_meta for one in made) and any(one.device.type == "cpu" for one in given)
        return result


# Z-Image takes lists of tokens, whose lengths have to be looked up.
@pytest.mark.parametrize("name", [name for name in TINY if name != "tiny-z-image"])
def test_a_pass_of_a_real_network_neither_reads_nor_sends_a_value(name):
    """Reading a value from the meta device fails, so a pass that succeeds has read none."""
    model = random_pipeline(name, "meta")
    rows = model.encode(PROMPTS).select(torch.arange(2, device="meta"))
    latents = torch.zeros(2, *model.latent_shape, device="meta")
    model.predict(model.network, latents, 500.0, rows)  # may send what is then kept
    with HostCopies() as copies:
        model.predict(model.network, latents, 500.0, rows)
    assert copies.count == 0


def test_the_count_of_copies_sees_them():
    with HostCopies() as copies:
        torch.ones(2).to("meta")
    assert copies.count == 1


@pytest.mark.parametrize("cached", [sizes_sent, places_sent])
def test_what_a_call_of_the_pipeline_left_behind_can_be_trained_with(cached):
    cached.cache_clear()
    first = (FluxPipeline,) if cached is places_sent else ()
    with torch.inference_mode():
        assert not cached(*first, 4, 4, torch.device("cpu"), torch.float32).is_inference()


def test_the_count_of_reads_sees_them():
    with ScalarReads() as reads:
        float(torch.ones(2).sum())
    assert reads.count == 1


def test_settings_are_refused_that_are_no_choice():
    config = build_config("tiny-flow", "grpo", "brightness", {})
    assert (config.compile, config.gradient_checkpointing) == ("off", "auto")
    for wrong in ({"compile": "all"}, {"gradient_checkpointing": "yes"}):
        with pytest.raises(InputError, match="must be one of"):
            build_config("tiny-flow", "grpo", "brightness", wrong)


class Watched(Conditions):
    """Encoded prompts that note how many rows are gathered at once."""

    largest = 0

    def select(self, index):
        Watched.largest = max(Watched.largest, len(index))
        return super().select(index)


@pytest.mark.parametrize("method", ["rsm_zeroth_order_flow", "sqdf", "awm"])
def test_prompts_are_gathered_for_the_rows_of_one_pass_only(method):
    trainer = toy("flow", method, micro_batch=2, replay_size=20)
    found = trainer.conditions
    trainer.conditions = Watched(found.embeds, found.pooled, found.negative_embeds, found.negative_pooled)
    Watched.largest = 0
    follow(trainer, 2)
    assert Watched.largest == 2


@pytest.mark.parametrize("method", ["rsm_zeroth_order_flow", "sqdf"])
def test_prompts_that_wait_in_main_memory_travel_once_a_rollout_and_teach_the_same(method):
    usual, offloaded = (toy("flow", method, micro_batch=2, replay_size=20) for _ in range(2))
    offloaded.conditions = replace(offloaded.conditions, home=torch.device("cpu"))
    assert timeless(follow(usual, 3)) == timeless(follow(offloaded, 3))


def test_some_prompts_keep_their_numbers_and_the_others_are_refused():
    rows = Conditions(torch.arange(12.0).view(6, 2, 1), None, torch.zeros(1, 2, 1), None)
    assert rows.only(torch.tensor([1])) is rows, "all are at home"
    held = replace(rows, home=torch.device("cpu")).only(torch.tensor([4, 1, 4]))
    assert len(held.embeds) == 2 and held.home is None
    wanted = torch.tensor([1, 4, 1])
    assert torch.equal(held.select(wanted).embeds, rows.embeds[wanted])
    with pytest.raises(IndexError):
        held.select(torch.tensor([0]))
