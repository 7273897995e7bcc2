"""Draw and score a finished run's adapter again, on its own or on other prompts and rewards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from trainers import evaluate as ev
from trainers.adapter import reload_adapter
from trainers.coercion import from_mapping
from trainers.errors import InputError
from trainers.long_prompts import used_prompts
from trainers.machine import choose_device, quiet_libraries, use_threads
from trainers.models.base import load_model
from trainers.models.configured import configured
from trainers.preflight import obstacles
from trainers.rewards.own import resolved
from trainers.rewards.remote import endpoint_problems
from trainers.run_folder import RunFolder
from trainers.run_inputs import kept


def reevaluate(path: Path, prompts: str | None, reward: str | None, samples: int) -> dict:
    """Return before/after/paired statistics of a run's adapter; the run folder is only read.

    Args:
        path: The run folder.
        prompts: Prompt set or file; None uses the run's held-out set.
        reward: Reward or mixture; None uses the run's.
        samples: Pictures per prompt.

    Raises:
        InputError: There is no run or no adapter, or a name is wrong.
    """
    folder = RunFolder(path)
    if not folder.exists():
        raise InputError(f"{folder.path} holds no run (it has no config.json).")
    if not folder.adapter.is_dir():
        raise InputError(f"The run in {folder.path} has no adapter yet; resume it first.")
    if samples < 1:
        raise InputError("'--samples' must be 1 or more.")
    config = kept(folder, from_mapping(folder.read_config(as_written=True)))
    device = choose_device(config)
    quiet_libraries()
    use_threads(config)
    if reward:
        config = replace(config, reward=resolved(reward), others="")
    if prompts:
        config = replace(config, heldout_prompts=prompts)
    if found := endpoint_problems(config) + obstacles(config):
        raise InputError(*dict.fromkeys(found))
    texts = used_prompts(config, "heldout_prompts")
    scorer = ev.load_scorer(config, texts, device)
    spec = configured(config)
    count = len(texts) if prompts else config.eval_prompts
    items = ev.plan(texts, count, samples, config.seed)
    names = [item.prompt for item in items]
    sides = {}
    for side in ("before", "after"):
        model = load_model(spec, device) if side == "before" else reload_adapter(spec, folder.adapter, device)
        pictures = list(ev.sample_items(model, items, config.eval_batch, config.guidance_scale))
        sides[side] = scorer.score(torch.cat(pictures), items)
    return {
        "before": ev.summarise(sides["before"], names),
        "after": ev.summarise(sides["after"], names),
        "paired": ev.paired(sides["before"].reward, sides["after"].reward, names),
    }
