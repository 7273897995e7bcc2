"""Speeds of the embedded models on the reference machine: what an estimate rests on before the first run.

``update_seconds`` are processor seconds of one thread with bfloat16 for one rollout and its updates, in the
races of docs/comparison.jsonl (2026-11-30), most of them where no group was silent. Two threads without
bfloat16 took about as long: by whole runs of ``rsm_zeroth_order_flow`` and ``rsm_first_order_flow`` there (13
to 14 and 31 to 34 rollouts in 88 s), and of the engines before and after on one machine. One row's figure may
be off by a quarter. Torch-free.
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
        update_seconds: Estimator → one rollout with its updates.
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
            memory_mb=1105.0,
            update_seconds=MappingProxyType(
                {
                    "rsm_zeroth_order_flow": 3.3,
                    "rsm_first_order_flow": 1.4,
                    "grpo": 7.2,
                    "tempflow_grpo": 3.1,
                    "branch_grpo": 5.9,
                    "grpo_guard": 6.2,
                    "pcpo_flow": 7.2,
                    "ppo": 7.3,
                    "reinforce_kl": 6.3,
                    "vgg_flow": 1.9,
                    "residual_nabla_db": 3.0,
                    "sqdf": 2.4,
                    "awm": 7.9,
                    "diffusion_nft": 11.1,
                    "ram": 14.5,
                    "custom": 7.2,
                }
            ),
            other_seconds=_order(7.2, 2.4),
        ),
        "tiny-diffusion": ModelSpeed(
            start_seconds=12.0,
            picture_seconds=0.025,
            memory_mb=1105.0,
            update_seconds=MappingProxyType(
                {
                    "rsm_zeroth_order_diffusion": 2.8,
                    "rsm_first_order_diffusion": 1.4,
                    "grpo": 7.5,
                    "tempflow_grpo": 4.1,
                    "branch_grpo": 7.0,
                    "grpo_guard": 9.3,
                    "pcpo": 8.4,
                    "ppo": 7.7,
                    "reinforce_kl": 7.8,
                    "vgg_flow": 2.5,
                    "residual_nabla_db": 3.4,
                    "sqdf": 2.7,
                    "awm": 10.3,
                    "diffusion_nft": 13.2,
                    "ram": 13.0,
                }
            ),
            other_seconds=_order(7.5, 2.7),  # as grpo and sqdf
        ),
    }
)
