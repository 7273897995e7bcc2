"""The devices of this machine, at most one worker on each, and which of them a run can use. Imports no torch.

``RSM_DEVICES`` names them (``cpu`` or ``cuda:0,cuda:1``); otherwise they are the GPUs that the NVIDIA driver
lists, and the CPU. On ZeroGPU they are the GPU that is lent by the chunk (``zero_gpu``), and the CPU.
Where nobody else is served one run has all GPUs; ``RSM_GPUS_PER_RUN`` says how many instead.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache

from rsm_app.jobs.places import on_space
from trainers.errors import InputError
from trainers.lending import on_zero_gpu
from trainers.models import EMBEDDED

CPU = "cpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"
LENT = "cuda:0"  # what the lent GPU is called


def devices() -> tuple[str, ...]:
    """Return the devices in the order in which they are given out, the CPU last.

    GPUs that one run may have together form one device, named like ``cuda:0+1``.

    Raises:
        InputError: ``RSM_DEVICES`` names something else than ``cpu`` and ``cuda:N``, or
            ``RSM_GPUS_PER_RUN`` is neither auto nor a whole number of 1 or more.
    """
    text = os.environ.get("RSM_DEVICES", "").strip()
    if text in ("", "auto"):
        if on_zero_gpu():
            return (LENT, CPU)
        names = (*(f"cuda:{number}" for number in range(_gpus())), CPU)
    else:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(re.fullmatch(r"cpu|cuda:\d+", name) for name in names):
        raise InputError(f"RSM_DEVICES must be auto or names such as cpu or cuda:0,cuda:1, not '{text}'.")
    return _together(names, _gpus_per_run(len(names)))


def _gpus_per_run(everything: int) -> int:
    """Return how many GPUs a run has: by default all, but one on a Space, where visitors share them."""
    text = os.environ.get("RSM_GPUS_PER_RUN", "").strip() or "auto"
    if text == "auto":
        return 1 if on_space() else everything
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise InputError(f"RSM_GPUS_PER_RUN must be auto or a whole number of 1 or more, not '{text}'.")
    return int(text)


def _together(names: Sequence[str], size: int) -> tuple[str, ...]:
    """Return the devices with every ``size`` GPUs as one; those that are left over form a smaller one."""
    numbers = [name.partition(":")[2] for name in names if name != CPU]
    groups = ["+".join(numbers[start : start + size]) for start in range(0, len(numbers), size)]
    return (*(f"cuda:{group}" for group in groups), *(name for name in names if name == CPU))


def gpu_numbers(device: str) -> list[int]:
    """Return the numbers of a device's GPUs; none for the CPU."""
    return [int(number) for number in device.partition(":")[2].split("+") if number]


def usable(asked: str, present: Sequence[str]) -> tuple[str, ...]:
    """Return the devices on which a run with the setting ``device`` may start."""
    gpus = tuple(name for name in present if name != CPU)
    if asked == "auto":
        return gpus or tuple(present)
    if asked == "cuda":
        return gpus
    if asked == CPU:
        return tuple(name for name in present if name == CPU)
    number = asked.partition(":")[2]
    return tuple(name for name in gpus if number in map(str, gpu_numbers(name)))


def visibility(asked: str, device: str) -> dict[str, str]:
    """Return the variables that let a worker see its own GPUs only; a run that names one sees all."""
    if device == CPU or asked not in ("auto", "cuda"):
        return {}
    shown = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    own = [shown[number] if number < len(shown) else str(number) for number in gpu_numbers(device)]
    return {VISIBLE: ",".join(own)}


def processes(asked: str, device: str, prompts: int, model: str) -> int:
    """Return how many processes a run starts: one a GPU, as many as can share its rollouts evenly.

    Args:
        asked: Its setting ``device``; a run that names one GPU uses that one.
        device: The device it is given.
        prompts: Its prompts per rollout.
        model: Its base model; the embedded ones are too small to be worth sharing.
    """
    several = asked in ("auto", "cuda") and model not in EMBEDDED
    count = max(1, len(gpu_numbers(device))) if several else 1
    return next(number for number in range(count, 0, -1) if prompts % number == 0)


def gpu_memory_gb() -> float:
    """Return the memory of the largest GPU that runs may use, in 10⁹ bytes; 0 without one."""
    if not any(name != CPU for name in devices()):
        return 0.0
    listing = _driver("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    return max((int(line) for line in listing.split() if line.isdigit()), default=0) * 2**20 / 1e9


@lru_cache(maxsize=8)
def _driver(*question: str) -> str:
    """Return what the NVIDIA driver's tool answers; empty when there is none."""
    if not shutil.which("nvidia-smi"):
        return ""
    try:
        return subprocess.run(["nvidia-smi", *question], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


@lru_cache(maxsize=1)
def _gpus() -> int:
    """Count the GPUs that the driver lists and this process may see."""
    count = len(re.findall(r"^GPU \d+:", _driver("-L"), re.MULTILINE))
    shown = os.environ.get(VISIBLE)
    return count if shown is None else min(count, len([name for name in shown.split(",") if name.strip()]))
