"""Speed of the engine on this machine: rollouts, updates, evaluation, and where the time goes.

Every figure comes from one process. Rollout and update times are medians over several rounds after a
warm-up round; the plain diffusers pipeline is timed in the same run, so ratios mean something on a noisy
machine.
"""

from __future__ import annotations

import statistics
import time

from trainers.config import RunConfig
from trainers.loop import Trainer
from trainers.machine import choose_device, choose_dtype, peak_memory_mb, quiet_libraries, use_threads
from trainers.models import MODELS
from trainers.models.base import load_model
from trainers.prompts import load_prompts
from trainers.rewards import load_reward

PLAIN_BATCH = 64


def bench(config: RunConfig, rounds: int) -> dict:
    """Return timings of a few rollouts and updates and of the plain pipeline.

    Args:
        config: The settings to time; budgets and evaluation settings are not used.
        rounds: Timed rollouts after one warm-up rollout.

    Returns:
        Images and rows per second, seconds per rollout and update, and peak memory in MB.
    """
    device = choose_device(config)
    quiet_libraries()
    dtype = choose_dtype(config, device)
    threads = use_threads(config)
    loaded = time.perf_counter()
    model = load_model(MODELS.get(config.model), device)
    trainer = Trainer(config, model, load_reward(config.reward, device), load_prompts(config.prompts), dtype)
    load_seconds = time.perf_counter() - loaded
    trainer.advance()
    evaluations = trainer.policy.evaluations
    records = [record for _ in range(rounds) for record in trainer.advance()]
    per_round = (trainer.policy.evaluations - evaluations) / rounds
    rollout = statistics.median(r.rollout_seconds for r in records)
    update = statistics.median(r.update_seconds for r in records)
    plain, plain_evaluations = _plain_pipeline(model, load_prompts(config.prompts), rounds)
    return {
        "model": config.model,
        "estimator": config.estimator,
        "reward": config.reward,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "load_seconds": load_seconds,
        "rollout_seconds": rollout,
        "update_seconds": update,
        "images_per_second": statistics.median(r.images_per_second for r in records),
        "network_rows_per_rollout": per_round,
        "network_rows_per_second": per_round / (rollout + update * config.updates_per_rollout),
        "plain_pipeline_seconds": plain,
        "plain_pipeline_rows_per_second": plain_evaluations / plain,
        "peak_memory_mb": peak_memory_mb(),
    }


def _plain_pipeline(model, prompts, rounds: int) -> tuple[float, int]:
    """Return the median seconds of a plain pipeline call on 64 pictures, and its network rows."""
    batch = [prompts[i % len(prompts)] for i in range(PLAIN_BATCH)]
    seconds = []
    for seed in range(rounds + 1):
        started = time.perf_counter()
        model.sample(batch, [seed * PLAIN_BATCH + i for i in range(PLAIN_BATCH)])
        seconds.append(time.perf_counter() - started)
    guided = 2 if model.guidance_scale > 1 else 1
    return statistics.median(seconds[1:]), PLAIN_BATCH * int(model.call["num_inference_steps"]) * guided


def table(result: dict) -> str:
    """Return the figures as aligned lines."""
    return "\n".join(
        f"{name:32} {value:.4g}" if isinstance(value, float) else f"{name:32} {value}"
        for name, value in result.items()
    )
