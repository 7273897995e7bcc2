"""Which base models this machine can train, and why not the others. Imports no torch."""

from __future__ import annotations

from rsm_app.jobs.devices import gpu_memory_gb
from trainers.errors import InputError
from trainers.models import MODELS, ModelSpec
from trainers.models.memory import smallest_preset


def device_problem(spec: ModelSpec) -> str:
    """Say why a model does not fit the devices of this machine; empty when it does."""
    needed = smallest_preset(spec)
    if needed == 0:
        return ""
    if needed is None:
        return "needs more than one GPU of 80 GB."
    memory = gpu_memory_gb()
    if not memory:
        return f"needs a GPU with {needed} GB; this machine has none."
    return "" if memory >= needed else f"needs a GPU with {needed} GB; the largest here has {memory:.0f} GB."


def trainable() -> tuple[ModelSpec, ...]:
    """Return the models of the table that fit the devices of this machine."""
    return tuple(spec for spec in MODELS if not device_problem(spec))


def require_model(name: str) -> None:
    """Refuse a base model that this machine cannot train.

    Only models of the table are taken: a visitor must not name files of this machine. Whether the weights can
    be had is asked when the run is queued.

    Raises:
        InputError: It is not in the table, or does not fit.
    """
    if name not in MODELS:
        raise InputError(MODELS.unknown(name))
    spec = MODELS.get(name)
    if problem := device_problem(spec):
        raise InputError(f"{spec.title} {problem}")
