"""Whether a noise schedule can be trained, by the name of its scheduler and its config. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of a flow: those whose levels do not fall step by step, and those that cannot be handed levels from outside.
_UNEVEN = (
    "FlowMatchHeunDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
    "EDMEulerScheduler",
)
_DEAF = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler")
EPSILON, VELOCITY, SAMPLE = "epsilon", "v_prediction", "sample"


def is_flow(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler is one of a rectified flow.

    Args:
        name: Its class.
        config: What its config says.
    """
    return (
        name.startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )


def schedule_problem(name: str, config: Mapping[str, Any], kind: str, handed: bool = False) -> str | None:
    """Return what keeps a scheduler from being read, as a sentence, or None.

    Args:
        name: Its class.
        config: What its config says.
        kind: What its pipeline is trained as, ``flow`` or ``diffusion``.
        handed: Whether its pipeline hands it the noise levels.
    """
    if is_flow(name, config) != (kind == "flow"):
        return f"Its scheduler {name[:60]} does not fit its pipeline class, which is trained as {kind}."
    if kind == "flow":
        if name not in _UNEVEN and not (handed and name in _DEAF):
            return None
        return (
            f"Its scheduler {name} gives no noise levels that this flow can be trained at. Put a "
            "FlowMatchEulerDiscreteScheduler in its place."
        )
    predicted = config.get("prediction_type", EPSILON)
    if predicted not in (EPSILON, VELOCITY, SAMPLE):
        return f"Its scheduler predicts '{str(predicted)[:40]}', which cannot be trained."
    if config.get("rescale_betas_zero_snr"):
        return (
            "Its noise schedule starts from zero signal (rescale_betas_zero_snr), where a predicted noise "
            "says nothing about the picture, so it cannot be trained."
        )
    return None
