"""Sessions in this process on tiny runs, and what two runs must have in common to be the same."""

from tests.e2e.shell import QUICK, lines, read
from trainers.opening import reopen, start
from trainers.presets import build_config
from trainers.session import Session

ADAPTER = "adapter/pytorch_lora_weights.safetensors"
TINY = {
    "prompts_per_update": 2,
    "eval_prompts": 4,
    "eval_samples_per_prompt": 2,
    "eval_batch": 2,
    "max_updates": 2,
    "budget_seconds": 3600,
}


def tiny_config(estimator="rsm_zeroth_order_flow", reward="brightness", model="tiny-flow", **changes):
    """Settings of a run of seconds, whose comparison takes four batches."""
    values = QUICK | TINY | changes
    return build_config(model, estimator, reward, values)


def session(path, config=None, listener=None, interruption=None, kind=Session):
    """Return a session on a new run (with a config) or on one that ended early."""
    folder, config = (start(path, config), config) if config else reopen(path)
    return kind(folder, config, listener, interruption, age=0.0)


def same(one, other) -> None:
    """Hold two finished run folders against each other, clocks aside."""
    assert (one / ADAPTER).read_bytes() == (other / ADAPTER).read_bytes()
    told = ("step", "reward_mean", "loss", "grad_norm", "kl", "images_sampled")
    first, second = (
        [{key: line[key] for key in told} for line in lines(path / "metrics.jsonl")] for path in (one, other)
    )
    assert first == second and first
    mine, theirs = read(one / "report.json"), read(other / "report.json")
    for key in ("before", "after", "paired", "drift", "images_sampled", "network_evaluations"):
        assert mine[key] == theirs[key], key
    pictures = sorted(path.relative_to(one) for path in one.glob("samples/*/*.png"))
    assert pictures == sorted(path.relative_to(other) for path in other.glob("samples/*/*.png"))
    assert all((one / path).read_bytes() == (other / path).read_bytes() for path in pictures)
