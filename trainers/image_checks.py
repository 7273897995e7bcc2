"""Are images images? What is not finite, or black throughout, is the model's fault and not the reward's."""

from __future__ import annotations

from torch import Tensor

from trainers.errors import FaultError

_AUTOENCODER = (
    "Its autoencoder is the likely cause: that of SDXL overflows in float16, and a merged checkpoint may "
    "hold numbers that are not finite. Replace its vae folder by a sound one (for SDXL "
    "madebyollin/sdxl-vae-fp16-fix)"
)


def check_finite(images: Tensor, trained: bool = False) -> None:
    """Refuse images of a pipeline call that are not finite.

    Args:
        images: (B, 3, H, W).
        trained: Whether a trained LoRA is in the model.

    Raises:
        FaultError: Some are not.
    """
    bad = _not_finite(images)
    if not bad:
        return
    who = "The trained model" if trained else "The base model"
    cause = "A smaller learning_rate keeps it from that." if trained else f"{_AUTOENCODER}."
    raise FaultError(f"{who} drew images that are not finite ({bad} of {len(images)} in a batch). {cause}")


def check_decoded(images: Tensor, latents: Tensor) -> None:
    """Refuse images of a rollout that are not finite, and say whether the network or the decoder made them
    so.

    Args:
        images: (B, 3, H, W).
        latents: (B, C, H, W) that they were decoded from.

    Raises:
        FaultError: Some are not.
    """
    bad = _not_finite(images)
    if not bad:
        return
    told = f"{bad} of {len(images)} images of a rollout are not finite."
    if _not_finite(latents):
        raise FaultError(
            f"{told} The network's own states are not: dtype=float32 or bfloat16 holds larger numbers, and a "
            "smaller learning_rate keeps it from them."
        )
    raise FaultError(f"{told} {_AUTOENCODER}, or set dtype=float32 or bfloat16, or decoder=tiny.")


def check_not_black(images: Tensor) -> None:
    """Refuse a whole side of a comparison, (N, 3, H, W) uint8, in which every pixel is black.

    Raises:
        FaultError: It is.
    """
    if len(images) and not images.any():
        raise FaultError(
            f"All {len(images)} images of the base model are black, so no reward can tell them apart. "
            f"{_AUTOENCODER}."
        )


def _not_finite(values: Tensor) -> int:
    """Return how many of (B, …) hold something that is not finite."""
    return int((~values.detach().isfinite()).flatten(1).any(1).sum())
