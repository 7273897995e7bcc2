"""Memory presets: how many rows pass at once, and what is kept off the device, so that a run fits its GPU.

A preset never changes what is learned: fewer rows at once are accumulated into the same update. What one row
keeps for the backward pass was counted on the full-size architectures (``python -m
tests.models_activation_study``: bfloat16, LoRA of rank 16, no classifier-free guidance); the rest is reckoned
from numbers of parameters, so a preset is a careful start and not a promise. When memory runs out all the
same, the session halves the rows once. Torch-free but for the one look at a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from trainers.errors import InputError
from trainers.models import MODELS, ModelSpec

PRESETS = (12, 16, 24, 48, 80)  # GB
NETWORKS = 3  # the base, the merged copy of rollouts, and the one that is trained; one may be all three
RESERVE_GB = 2.0  # autoencoder, LoRA with optimiser, latents, CUDA itself
ENCODING_GB = 1.0  # the passes of a few prompts, CUDA itself
USABLE = 0.92  # of a GPU's memory; the rest is lost to fragments
# Of what autograd keeps of a decoded picture, the most that is there at once without it, both in float32:
# 0.14 to 0.20 on the full-size decoders.
DECODED = 0.2
SLICING_BELOW = 8  # pictures that can be decoded at once, which are more than a comparison draws at once
WANTED_ROWS = 4  # fewer rows than that are worth recomputing activations
MOST_ROWS = 64


@dataclass(frozen=True)
class Costs:
    """Memory of one architecture at its own picture size.

    Attributes:
        parameters: Parameters of the denoiser, in billions.
        kept_gb: What autograd keeps of one row, in 10⁹ bytes.
        recomputed_gb: The same when blocks are computed again on the way back.
        decoder_gb: What autograd keeps of one decoded picture, in float32.
        encoders: Parameters of each text encoder, in billions.
    """

    parameters: float
    kept_gb: float
    recomputed_gb: float
    decoder_gb: float
    encoders: tuple[float, ...]


_CLIP_L, _CLIP_G, _T5 = 0.12, 0.69, 4.76


COSTS: Mapping[str, Costs] = MappingProxyType(
    {
        "sd15": Costs(0.86, 0.85, 0.22, 5.97, (0.34,)),
        "sdxl": Costs(2.57, 6.01, 0.62, 23.88, (_CLIP_L, _CLIP_G)),
        "sd35-medium": Costs(2.24, 2.30, 0.22, 5.97, (_CLIP_L, _CLIP_G, _T5)),
        "sd35-large": Costs(8.06, 4.53, 0.38, 5.97, (_CLIP_L, _CLIP_G, _T5)),
        "flux-dev": Costs(11.90, 6.60, 0.58, 5.97, (_CLIP_L, _T5)),
        "sana": Costs(1.60, 3.66, 0.28, 31.00, (2.61,)),
        "pixart-sigma": Costs(0.61, 4.29, 0.43, 23.88, (_T5,)),
        "z-image": Costs(6.15, 8.56, 0.55, 5.97, (4.02,)),
    }
)
TINY_DECODER_GB = 0.58  # of a picture at 512×512, in float32


@dataclass(frozen=True)
class Footprint:
    """What of a model stays on the device.

    Attributes:
        micro_batch: Most rows that pass through the network with gradients at once.
        gradient_checkpointing: Activations are computed again on the way back instead of being kept.
        decode_batch: Most pictures that are decoded at once.
        offload: Text encoders stay in main memory and prompts are encoded once.
        encoding: While prompts are encoded, the encoders are on the device ``beside`` the denoiser, or
            ``alone``, or ``in turn``, one at a time.
        slicing: The autoencoder works picture by picture.
        one_network: The base, the rollouts and the training share one denoiser, whose LoRA is switched on and
            off instead of being merged; slower, and a third of the weights.
    """

    micro_batch: int = 1 << 16
    gradient_checkpointing: bool = False
    decode_batch: int = 1 << 16
    offload: bool = False
    encoding: str = "beside"
    slicing: bool = False
    one_network: bool = False


EVERYTHING = Footprint()


def footprint(spec: ModelSpec, gigabytes: float, reward_bytes: float = 0.0) -> Footprint:
    """Return how a model is kept within a GPU of this size.

    Args:
        spec: The model, with the run's picture size and decoder.
        gigabytes: Memory of the GPU, in 10⁹ bytes.
        reward_bytes: What the networks of the run's rewards take of it.
    """
    gigabytes -= reward_bytes / 1e9 / USABLE
    for copies in (NETWORKS, 1):
        free = gigabytes * USABLE - RESERVE_GB - weights_gb(spec, copies)
        kept, recomputed = (int(free / row) for row in _row_gb(spec))
        recompute = spec.checkpointing == "on" or (spec.checkpointing == "auto" and kept < WANTED_ROWS)
        rows = recomputed if recompute else kept
        pictures = int(free / _picture_gb(spec))
        if rows >= WANTED_ROWS and (pictures >= WANTED_ROWS or not spec.decodes_gradients):
            break
    pictures = min(MOST_ROWS, max(1, pictures))
    return Footprint(
        micro_batch=min(MOST_ROWS, max(1, rows)),
        gradient_checkpointing=recompute,
        decode_batch=pictures,
        offload=True,
        encoding=_encoding(spec, gigabytes * USABLE),
        slicing=pictures < SLICING_BELOW,
        one_network=copies == 1,
    )


def smallest_preset(spec: ModelSpec) -> int | None:
    """Return the smallest preset, in GB, with room for one row; 0 for embedded models, None when none has."""
    if spec.embedded:
        return 0
    picture = _picture_gb(spec) * (1.0 if spec.decodes_gradients else 0.5)  # in 16 bits where it can be
    training = RESERVE_GB + weights_gb(spec, 1) + max(_row_gb(spec)[1], picture)
    needed = max(training, ENCODING_GB + max(_encoders_gb(spec)))
    return next((size for size in PRESETS if size * USABLE >= needed), None)


def weights_gb(spec: ModelSpec, copies: int) -> float:
    """Return what some copies of a model's denoiser take in 16 bits, in 10⁹ bytes."""
    return 2.0 * (spec.parameters or COSTS[spec.measured].parameters) * copies


def decoder_gb(spec: ModelSpec) -> float:
    """Return what a reward gradient through the run's decoder takes for one picture, in 10⁹ bytes."""
    if spec.decoder == "tiny":
        return TINY_DECODER_GB * (_side(spec) / 512) ** 2
    return COSTS[spec.measured].decoder_gb * _area(spec)


def _picture_gb(spec: ModelSpec) -> float:
    """Return what decoding one picture of a rollout takes, in 10⁹ bytes.

    A reward's gradient may pass on through the network, which then recomputes its blocks where it is short.
    """
    if spec.decodes_gradients:
        return decoder_gb(spec) + _row_gb(spec)[1]
    return decoder_gb(spec) * DECODED


def _encoders_gb(spec: ModelSpec) -> list[float]:
    """Return what each text encoder takes in 16 bits, in 10⁹ bytes."""
    return [2.0 * parameters for parameters in COSTS[spec.measured].encoders]


def _encoding(spec: ModelSpec, usable: float) -> str:
    """Return how prompts are encoded within so many GB; see ``Footprint``."""
    encoders = sum(_encoders_gb(spec))
    if encoders + weights_gb(spec, 1) + RESERVE_GB <= usable:
        return "beside"
    return "alone" if encoders + ENCODING_GB <= usable else "in turn"


def _row_gb(spec: ModelSpec) -> tuple[float, float]:
    """Return what one row keeps, and what it keeps when blocks are computed again."""
    costs = COSTS[spec.measured]
    passes = 2 if spec.guidance == "classifier-free" else 1  # the empty prompt is a row of its own
    return costs.kept_gb * _area(spec) * passes, costs.recomputed_gb * _area(spec) * passes


def footprint_on(spec: ModelSpec, device: str) -> Footprint:
    """Return how a model is kept on a device: by the preset the run asks for, else by the GPU's own memory.

    Raises:
        InputError: The weights alone are larger than the memory.
    """
    if spec.embedded or not (device.startswith("cuda") or spec.memory != "auto"):
        return replace(EVERYTHING, gradient_checkpointing=spec.checkpointing == "on")
    gigabytes = float(spec.memory) if spec.memory != "auto" else _size_of(device)
    if weights_gb(spec, 1) > gigabytes:
        raise InputError(
            f"The weights of '{spec.name}' take {weights_gb(spec, 1):.0f} GB and the GPU has "
            f"{gigabytes:.0f}; choose a smaller model."
        )
    return footprint(spec, gigabytes, spec.reward_bytes)


def _size_of(device: str) -> float:
    import torch

    return torch.cuda.get_device_properties(device).total_memory / 1e9


def _area(spec: ModelSpec) -> float:
    """Return the picture's area over the one that was measured."""
    return (_side(spec) / MODELS.get(spec.measured).call["height"]) ** 2


def _side(spec: ModelSpec) -> int:
    return spec.call.get("height", MODELS.get(spec.measured).call["height"])
