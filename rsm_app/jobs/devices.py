"""The devices of this machine, at most one worker on each, and which of them a run can use. Imports no torch.

``RSM_DEVICES`` names them (``cpu`` or ``cuda:0,cuda:1``); otherwise they are the GPUs that the NVIDIA driver
lists, and the CPU.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache

from trainers.errors import InputError

CPU = "cpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def devices() -> tuple[str, ...]:
    """Return the devices in the order in which they are given out, the CPU last.

    Raises:
        InputError: ``RSM_DEVICES`` names something else than ``cpu`` and ``cuda:N``.
    """
    text = os.environ.get("RSM_DEVICES", "").strip()
    if text in ("", "auto"):
        return (*(f"cuda:{number}" for number in range(_gpus())), CPU)
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(re.fullmatch(r"cpu|cuda:\d+", name) for name in names):
        raise InputError(f"RSM_DEVICES must be auto or names such as cpu or cuda:0,cuda:1, not '{text}'.")
    return names


def usable(asked: str, present: Sequence[str]) -> tuple[str, ...]:
    """Return the devices on which a run with the setting ``device`` may start."""
    gpus = tuple(name for name in present if name != CPU)
    if asked == "auto":
        return gpus or tuple(present)
    if asked == "cuda":
        return gpus
    return tuple(name for name in present if name == asked)


def visibility(asked: str, device: str) -> dict[str, str]:
    """Return the variables that let a worker see its own GPU only; a run that names one sees all."""
    if device == CPU or asked not in ("auto", "cuda"):
        return {}
    number = int(device.partition(":")[2])
    shown = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return {VISIBLE: shown[number] if number < len(shown) else str(number)}


@lru_cache(maxsize=1)
def _gpus() -> int:
    """Count the GPUs that the driver lists and this process may see."""
    if not shutil.which("nvidia-smi"):
        return 0
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    count = len(re.findall(r"^GPU \d+:", listing.stdout, re.MULTILINE))
    shown = os.environ.get(VISIBLE)
    return count if shown is None else min(count, len([name for name in shown.split(",") if name.strip()]))
