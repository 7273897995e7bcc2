"""Which stochastic kernels belong to which model family, by name, for checks of settings. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# The first of each is what ``auto`` chooses.
FAMILY_KERNELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "flow": ("flow_sde", "flow_cps", "flow_constant"),
        "diffusion": ("ddim", "pcpo", "pcpo_low"),
    }
)


def kernel_problems(family: str, name: str) -> list[str]:
    """Say what is wrong with a kernel for models of a family; empty when it is one of theirs, or ``auto``."""
    names = FAMILY_KERNELS[family]
    if name == "auto" or name in names:
        return []
    return [f"'kernel' must be auto or {' or '.join(names)} for a {family} model, not '{name}'."]
