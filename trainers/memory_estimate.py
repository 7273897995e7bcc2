"""How much memory a run will take, estimated from its settings before anything is loaded. Torch-free.

The figures of the embedded models were measured on whole runs on a CPU, in float32, as the largest resident
size of the process. A large model fits its own passes into its GPU (``models.memory``), so there only what
settings make grow all the same is counted: the states of a rollout, on the GPU, and the images of the
comparison, in main memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainers.config import RunConfig
from trainers.custom import method_of
from trainers.models import ModelSpec
from trainers.models.configured import configured
from trainers.preflight import pictures_per_rollout

MB = 2**20
BASE_MB = 700.0  # libraries, an embedded model in three copies, its rewards
RANK_MB = 1.05  # of the LoRA, its optimizer, and the copies that are saved
ROW_MB = 2.2  # a row that passes with gradients
LOOKAHEAD_MB, LEVEL_MB = 7.5, 0.7  # a row whose gradient is read through the decoder, and each further pass
SAMPLE_MB = 2.0  # an image of the comparison while it is sampled
PROMPT_MB = 0.05  # an encoded prompt, while all of them are
_FLOAT = 4
_STATES = 3  # of a step: the state, its noise and the network's output
_COPIES = 4  # of a compared image: both sides, and what scoring makes of them
_REPLAYED = 3  # copies of a stored state while another one is added
_LATENTS = {"sana": (32, 32)}  # channels, and pixels of a side that become one; by architecture
_USUAL_LATENTS = {"flow": (16, 8), "diffusion": (4, 8)}


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one run, in 2**20 bytes.

    Attributes:
        base: What every run takes.
        parts: Setting → what grows with it; the sum of all is a little more than the peak.
    """

    base: float
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """All together."""
        return self.base + sum(self.parts.values())

    def largest(self) -> str:
        """Return the setting that takes most; empty when none takes anything."""
        return max(self.parts, key=lambda name: self.parts[name], default="")


def estimate_memory(config: RunConfig, prompts: int = 0) -> MemoryEstimate:
    """Estimate the main memory of a run that works on a CPU.

    Args:
        config: Settings whose combination is sound.
        prompts: How many training prompts come along; those of a built-in set count nothing.
    """
    spec = configured(config)
    passes = 2 if config.guidance_scale is not None and config.guidance_scale > 1 else 1
    training, sampling = _training_mb(config) * passes, _sampling_mb(config) * passes
    # Training and comparison take turns, so only the larger of the two counts.
    batch = {"micro_batch": training} if training >= sampling else {"eval_batch": sampling}
    parts = batch | host_parts(config, spec) | device_parts(config, spec)
    parts |= {"lora_rank": RANK_MB * config.lora_rank, "prompts": PROMPT_MB * prompts}
    return MemoryEstimate(BASE_MB, parts)


def host_parts(config: RunConfig, spec: ModelSpec) -> dict[str, float]:
    """Return what settings take of main memory wherever a run works: the images of the comparison."""
    side = _side(spec)
    images = config.eval_prompts * config.eval_samples_per_prompt
    return {
        "eval_prompts": images * 3 * side**2 * _COPIES / MB,
        "replay_size": config.replay_size * _state_mb(spec) * _REPLAYED,
    }


def device_parts(config: RunConfig, spec: ModelSpec) -> dict[str, float]:
    """Return what settings take where the model is, whatever passes at once: the states of a rollout."""
    method, images = method_of(config), pictures_per_rollout(config)
    roots = config.prompts_per_update * config.roots_per_prompt
    if method.branching == "per_step":
        states = _STATES * images + roots * config.rollout_steps
    else:
        states = _STATES * images * (config.rollout_steps if method.branching != "none" else 1)
        states += images * config.forward_draws * _STATES if method.branching == "none" else 0
    return {"prompts_per_update": states * _state_mb(spec)}


def _training_mb(config: RunConfig) -> float:
    """Return what the rows take that pass with gradients, or through a lookahead, at once."""
    rows = min(config.micro_batch, _rows_per_update(config))
    if method_of(config).lookahead != "next" or method_of(config).order != "first":
        return ROW_MB * rows
    ahead = min(config.micro_batch, config.prompts_per_update * config.roots_per_prompt)
    levels = min(config.lookahead_steps, config.rollout_steps)
    return max(ROW_MB * rows, (LOOKAHEAD_MB + LEVEL_MB * (levels - 1)) * ahead)


def _rows_per_update(config: RunConfig) -> float:
    method, images = method_of(config), pictures_per_rollout(config)
    if method.branching == "per_step":
        steps = sum(1 for count in config.branches if count)  # rows that hold the policy pass by themselves
        rows = config.prompts_per_update * config.roots_per_prompt * max(steps, config.rollout_steps - steps)
    elif method.branching == "none" and method.order == "zeroth":
        rows = images * config.forward_draws
    else:
        rows = images * config.rollout_steps
    return -(-rows // config.updates_per_rollout)


def _sampling_mb(config: RunConfig) -> float:
    return SAMPLE_MB * min(config.eval_batch, config.eval_prompts * config.eval_samples_per_prompt)


def _state_mb(spec: ModelSpec) -> float:
    channels, pixels = _LATENTS.get(spec.measured, _USUAL_LATENTS[spec.family])
    return channels * (_side(spec) // pixels) ** 2 * _FLOAT / MB


def _side(spec: ModelSpec) -> int:
    return int(spec.call.get("height", spec.sizes[0]))
