"""Speed of the engine on this machine: rollouts, updates, memory, and where the time goes.

Every figure comes from one process. Rollouts and updates are medians over several rounds after a warm-up
round; then as many rounds run under a clock (``trainers.phases``), which may slow them on a GPU: the split.
The plain diffusers pipeline and the bare network are timed last, without LoRA and recomputed activations, at
the run's own steps, guidance, precision and micro-batch, so ratios mean something on a noisy machine. Where
memory does not suffice for that, the batch is halved, and the figures say so.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainers.config import RunConfig
from trainers.failures import out_of_memory
from trainers.loop import Trainer, UpdateMetrics
from trainers.machine import (
    choose_device,
    choose_dtype,
    differentiable_attention,
    forget_peak,
    peak_memory_mb,
    quiet_libraries,
    use_threads,
)
from trainers.models.base import PipelineModel, load_model
from trainers.models.configured import configured
from trainers.models.memory import footprint_on
from trainers.models.random_weights import random_pipeline, random_spec, size_for
from trainers.phases import OWN, PHASES, split
from trainers.prompts import load_prompts
from trainers.rewards import load_reward


@dataclass(frozen=True)
class _Rounds:
    """What several rollouts with their updates took.

    Attributes:
        rollout: Median seconds of a rollout: sampling, decoding, scoring.
        update: Median seconds of an update.
        images: Pictures of a rollout.
        sampled: Network rows of a rollout, guidance counted twice.
        trained: Rows of a rollout that were trained on, guidance counted twice.
        evaluations: Network rows of a rollout and its updates, those without gradient included.
        processor: Seconds of all cores together per rollout with its updates.
    """

    rollout: float
    update: float
    images: float
    sampled: float
    trained: float
    evaluations: float
    processor: float


def bench(config: RunConfig, rounds: int, random_weights: str = "") -> dict:
    """Return timings of a few rollouts and updates, of the plain pipeline and of the bare network.

    Args:
        config: The settings to time; budgets and evaluation settings are not used.
        rounds: Timed rollouts after one warm-up rollout.
        random_weights: An architecture of ``trainers.models.random_weights`` in the place of the model; on a
            CPU the tiny one of its family takes its place, since a full-size one would take hours.

    Returns:
        Pictures and rows per second, seconds per rollout and update, seconds of all processor cores together
        per rollout with its updates (which other programs hardly change), peak memory in MB of rollouts and
        updates, the share of every phase, and the ratios to the plain pipeline and the bare network, None
        where memory has no room for these.

    Raises:
        InputError: There are no such random weights.
    """
    device = choose_device(config)
    quiet_libraries()
    dtype = choose_dtype(config, device)
    threads = use_threads(config)
    random_weights = random_weights and size_for(random_weights, device)
    loaded = time.perf_counter()
    model = _model(config, device, dtype, random_weights)
    trainer = Trainer(
        config, model, load_reward(config.reward, device, config), load_prompts(config.prompts), dtype
    )
    load_seconds = time.perf_counter() - loaded
    forget_peak(trainer.policy.device)
    trainer.advance()
    timed = _timed_rounds(trainer, rounds)
    shares = _shares(trainer, rounds)
    memory = peak_memory_mb(trainer.policy.device)
    _undress(trainer, dtype)
    plain, plain_batch = _fitting(trainer.micro_batch, lambda n: _plain_rows_per_second(trainer, rounds, n))
    bare, bare_batch = _fitting(trainer.micro_batch, lambda n: _bare_rows_per_second(trainer, rounds, n))
    per_rollout = timed.rollout + timed.update * config.updates_per_rollout
    trained = timed.trained / (timed.update * config.updates_per_rollout)
    return {
        "model": f"random:{random_weights}" if random_weights else config.model,
        "estimator": config.estimator,
        "reward": config.reward,
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "load_seconds": load_seconds,
        "rollout_seconds": timed.rollout,
        "update_seconds": timed.update,
        "seconds_per_update": per_rollout / config.updates_per_rollout,
        "processor_seconds": timed.processor,
        "images_per_second": timed.images / per_rollout,
        "images_sampled_per_second": timed.images / timed.rollout,
        "rows_trained_per_second": trained,
        "network_rows_per_rollout": timed.evaluations,
        "network_rows_per_second": timed.evaluations / per_rollout,
        "rollout_rows_per_second": timed.sampled / timed.rollout,
        "plain_pipeline_rows_per_second": plain,
        "plain_pipeline_batch": plain_batch,
        "rollout_to_plain": timed.sampled / timed.rollout / plain if plain else None,
        "bare_training_rows_per_second": bare,
        "bare_training_batch": bare_batch,
        "bare_to_training": bare / trained if bare else None,
        "peak_memory_mb": memory,
        "overhead_share": sum(shares[name] for name in OWN),
        "shares": shares,
    }


def _model(config: RunConfig, device: str, dtype: torch.dtype, random_weights: str) -> PipelineModel:
    if not random_weights:
        return load_model(configured(config), device)
    spec = configured(config, random_spec(random_weights))
    return random_pipeline(random_weights, device, dtype, footprint_on(spec, device))


def _timed_rounds(trainer: Trainer, rounds: int) -> _Rounds:
    policy, rows = trainer.policy, trainer.rows_trained
    evaluations, sampled = policy.evaluations, policy.sampled
    busy = time.process_time()
    records: list[UpdateMetrics] = [record for _ in range(rounds) for record in trainer.advance()]
    busy = time.process_time() - busy
    guided = 2 if policy.guidance_scale > 1 else 1
    images = trainer.progress.images_sampled / trainer.progress.rollouts
    return _Rounds(
        statistics.median(r.rollout_seconds for r in records),
        statistics.median(r.update_seconds for r in records),
        images,
        (policy.sampled - sampled) / rounds,
        guided * (trainer.rows_trained - rows) / rounds,
        (policy.evaluations - evaluations) / rounds,
        busy / rounds,
    )


def _shares(trainer: Trainer, rounds: int) -> dict[str, float]:
    """Return the share of every phase, and of the engine itself, in the time of rollouts and updates."""
    with split(trainer.policy.device) as seconds:
        for _ in range(rounds):
            trainer.advance()
    whole = sum(seconds.values())
    return {name: seconds.get(name, 0.0) / whole for name in (*PHASES, "engine")}


def _undress(trainer: Trainer, dtype: torch.dtype) -> None:
    """Leave the pipeline as anybody would load it; the trainer, which may share its network, is used up."""
    model = trainer.policy.model
    model.forget_lora()
    if getattr(model.network, "is_gradient_checkpointing", False):
        model.network.disable_gradient_checkpointing()
    for module in model.network.modules():
        module._compiled_call_impl = None
    model.pipe.to(dtype=dtype)


def _fitting(batch: int, timed: Callable[[int], float]) -> tuple[float | None, int]:
    """Return a baseline's rows per second and its batch, the largest that fits; (None, 0) when none does."""
    while batch:
        try:
            return timed(batch), batch
        except Exception as error:
            if not out_of_memory(error):
                raise
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        batch //= 2
    return None, 0


def _plain_rows_per_second(trainer: Trainer, rounds: int, count: int) -> float:
    """Return the network rows per second of calling the pipeline for ``count`` pictures, decoded."""
    model, policy, config = trainer.policy.model, trainer.policy, trainer.config
    batch = [trainer.prompts[i % len(trainer.prompts)] for i in range(count)]

    def call(number: int) -> None:
        seeds = [number * count + i for i in range(count)]
        model.sample(batch, seeds, config.guidance_scale, config.rollout_steps)

    guided = 2 if policy.guidance_scale > 1 else 1
    return count * config.rollout_steps * guided / _median_seconds(call, rounds, policy.device)


def _bare_rows_per_second(trainer: Trainer, rounds: int, count: int) -> float:
    """Return the rows per second of nothing but the network without adapter, forwards and backwards."""
    policy, schedule = trainer.policy, trainer.schedule
    network, dtype = policy.model.network, policy.model.network.dtype
    rows = trainer.conditions.select(torch.arange(count) % len(trainer.prompts)).to(dtype)
    guided = policy.guidance_scale > 1
    rows = rows.guided() if guided else rows
    shape = (count * (2 if guided else 1), *policy.model.latent_shape)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(policy.device, dtype)

    def call(_: int) -> None:
        leaf = latents.requires_grad_(True)
        with differentiable_attention(policy.device):
            output = policy.model.predict(network, leaf, float(schedule.timesteps[0]), rows)
            torch.autograd.grad(output.sum(), leaf)

    return len(latents) / _median_seconds(call, rounds, policy.device)


def _median_seconds(call: Callable[[int], None], rounds: int, device: torch.device) -> float:
    """Return the median time of a call after a warm-up, the device waited for."""
    seconds = []
    for number in range(rounds + 1):
        started = time.perf_counter()
        call(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def table(result: dict) -> str:
    """Return the figures as aligned lines."""
    flat = {name: value for name, value in result.items() if name != "shares"}
    flat |= {f"share of {name}": share for name, share in result["shares"].items()}
    return "\n".join(
        f"{name:32} {value:.4g}" if isinstance(value, float) else f"{name:32} {value}"
        for name, value in flat.items()
    )
