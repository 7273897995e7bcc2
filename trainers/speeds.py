"""Speeds of the embedded models on the reference machine: what an estimate rests on before the first run.

``update_seconds`` are processor seconds of one thread, by ``python -m trainers bench --model M --estimator E
--updates 1 --set threads=1`` (a quarter of the tuned prompts, times four), times 0.33. That factor makes them
agree with whole runs on two threads (docs/LOG.md): 13 to 14 updates of ``rsm_zeroth_order_flow``, 31 to 34
of ``rsm_first_order_flow`` in 88 s, 66 to 69 of ``rsm_first_order_diffusion`` in 148 s. One row's figure may
be off by a quarter; ``tiny-diffusion``'s other rows were not measured. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MACHINE = "a machine with two AVX2 processor cores and no GPU"


@dataclass(frozen=True)
class ModelSpeed:
    """Seconds of one model on the reference machine.

    Attributes:
        start_seconds: From starting the process to the first picture, saving at the end included.
        picture_seconds: One picture of the comparison, scoring included.
        memory_mb: Largest memory of a run, in 2**20 bytes.
        update_seconds: Estimator → one rollout with its update.
        other_seconds: The same for a row that is not listed, by its order.
    """

    start_seconds: float
    picture_seconds: float
    memory_mb: float
    update_seconds: Mapping[str, float]
    other_seconds: Mapping[str, float]


def _order(zeroth: float, first: float) -> Mapping[str, float]:
    return MappingProxyType({"zeroth": zeroth, "first": first})


SPEEDS: Mapping[str, ModelSpeed] = MappingProxyType(
    {
        "tiny-flow": ModelSpeed(
            start_seconds=12.0,
            picture_seconds=0.025,
            memory_mb=930.0,
            update_seconds=MappingProxyType(
                {
                    "rsm_zeroth_order_flow": 3.5,
                    "rsm_first_order_flow": 1.4,
                    "grpo": 4.0,
                    "tempflow_grpo": 2.4,
                    "branch_grpo": 3.4,
                    "grpo_guard": 4.6,
                    "pcpo_flow": 4.4,
                    "ppo": 4.5,
                    "reinforce_kl": 5.3,
                    "vgg_flow": 3.0,
                    "residual_nabla_db": 2.6,
                    "sqdf": 2.5,
                    "awm": 5.1,
                    "diffusion_nft": 6.2,
                    "ram": 5.8,
                    "custom": 4.9,
                }
            ),
            other_seconds=_order(4.4, 2.4),
        ),
        "tiny-diffusion": ModelSpeed(
            start_seconds=12.0,
            picture_seconds=0.025,
            memory_mb=930.0,
            update_seconds=MappingProxyType(
                {
                    "rsm_zeroth_order_diffusion": 3.7,
                    "rsm_first_order_diffusion": 1.55,
                    "grpo": 7.7,
                    "tempflow_grpo": 3.5,
                    "branch_grpo": 5.1,
                }
            ),
            other_seconds=_order(7.7, 3.3),  # as grpo, and as the flow's rows in proportion,
        ),
    }
)
