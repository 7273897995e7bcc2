"""A run's base model as its settings want it: picture size, distilled guidance, decoder, memory preset.

Torch-free. Everything that loads a run's model goes through ``configured``.
"""

from __future__ import annotations

from dataclasses import replace

from trainers.assets import asset_root
from trainers.bounded_json import read_json
from trainers.config import RunConfig
from trainers.custom import method_of
from trainers.models import MODELS, ModelSpec
from trainers.rewards import REWARDS, parse_mixture
from trainers.samplers.families import kernel_problems


def configured(config: RunConfig, spec: ModelSpec | None = None) -> ModelSpec:
    """Return the table entry of a run's model, with the run's own choices in it.

    Args:
        config: The run's settings.
        spec: What takes the place of the run's model.

    Raises:
        InputError: There is no such model.
    """
    spec = spec or MODELS.get(config.model)
    call = dict(spec.call)
    if config.resolution:
        call |= {"height": config.resolution, "width": config.resolution}
    if config.eval_steps:
        call["num_inference_steps"] = config.eval_steps
    if spec.guidance == "distilled" and config.guidance_scale is not None:
        call["guidance_scale"] = config.guidance_scale
    return replace(
        spec,
        call=call,
        decoder=config.decoder,
        memory=config.memory,
        checkpointing=config.gradient_checkpointing,
        decodes_gradients=method_of(config).order == "first",
        reward_bytes=_reward_bytes(config, spec),
    )


def usual_steps(spec: ModelSpec) -> int | None:
    """Return the sampling steps that a model takes by itself, as far as the table or its folder says."""
    steps = spec.call.get("num_inference_steps")
    if steps is None and spec.embedded:
        settings = read_json(asset_root() / spec.location / "call.json") or {}
        steps = settings.get("call", {}).get("num_inference_steps")
    return steps if isinstance(steps, int) else None


def _reward_bytes(config: RunConfig, spec: ModelSpec) -> float:
    """Return the size of the networks, fetched from the Hub, that score a run's pictures."""
    names = [name for text in (config.reward, config.others) if text for name, _ in parse_mixture(text)]
    files = {file for name in (*names, *spec.others) if name in REWARDS for file in REWARDS.get(name).weights}
    return 1e6 * sum(file.megabytes for file in files)


def model_problems(config: RunConfig) -> list[str]:
    """Say which of a run's settings its base model cannot follow."""
    spec, side, found = MODELS.get(config.model), config.resolution, []
    low, high = spec.sizes
    if side and (not low <= side <= high or side % spec.size_step):
        wanted = f"{low}" if low == high else f"a multiple of {spec.size_step} from {low} to {high}"
        found.append(f"'resolution' must be 0 or {wanted} for '{spec.name}', not {side}.")
    if config.decoder == "tiny" and not spec.tiny_vae:
        found.append(
            f"'decoder' cannot be tiny for '{spec.name}': there is no tiny autoencoder of its latents."
        )
    return found + kernel_problems(spec.family, config.kernel)
