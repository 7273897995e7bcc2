"""What makes training quicker or smaller changes nothing that is learned."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.estimators.toy_model import ToyModel
from tests.trainer_cases import EVERY, follow, toy
from trainers.errors import InputError
from trainers.loop import Trainer
from trainers.models.base import load_model
from trainers.models.configured import configured
from trainers.models.memory import Footprint
from trainers.policy import Policy
from trainers.presets import build_config
from trainers.rewards import load_reward

PROMPTS = ["a red circle", "two blue squares"]

pytestmark = pytest.mark.usefixtures("one_thread")


def shipped(name, method, **settings):
    settings = {"rollout_steps": 3, "branches": "3,3", "prompts_per_update": 2, "dtype": "float32"} | settings
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


@pytest.mark.slow
def test_compiled_blocks_learn_the_same():
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
        part = trainer._part(rollout.rows, 0)
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
