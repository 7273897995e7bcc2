"""A run's model, policy and optimiser, loaded alike by every process that works on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.long_prompts import REFUSE, used_prompts
from trainers.loop import Trainer
from trainers.machine import choose_dtype
from trainers.models.base import load_model
from trainers.models.configured import configured
from trainers.ranks import Ranks
from trainers.rewards import Mixture, unscorable


def load_trainer(
    config: RunConfig,
    reward: Mixture,
    device: str,
    ranks: Ranks,
    check: Callable[[], None],
    drawn: Sequence[str] = (),
) -> Trainer:
    """Load the model and build the trainer at update 0.

    Args:
        config: The settings.
        reward: The reward to maximise.
        device: Where to load.
        ranks: The processes of the run.
        check: Called between two batches; may raise to end the work there.
        drawn: Prompts that this process draws beside those it trains on.

    Raises:
        InputError: Prompts that the reward cannot score or the model would cut off.
        FaultError: A file is missing or damaged.
    """
    check()
    prompts, heldout = (used_prompts(config, name) for name in ("prompts", "heldout_prompts"))
    model = load_model(configured(config), device)
    check()
    found = unscorable(config.reward, prompts, config)
    if config.long_prompts == REFUSE:
        found += model.prompt_problems(prompts + heldout)
    if found:
        raise InputError(*list(dict.fromkeys(found))[:10])
    model.remember([*prompts, *drawn])  # before the training's networks take the room of the encoders
    trainer = Trainer(config, model, reward, prompts, choose_dtype(config, device), ranks=ranks)
    model.before_batch = trainer.policy.before_batch = check
    check()
    return trainer
