"""What a launcher such as ``accelerate launch`` or ``torchrun`` says about its processes. Torch-free."""

from __future__ import annotations

import os


def launched() -> tuple[int, int]:
    """Return this process's number and how many a launcher started; (0, 1) without one."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    return (int(os.environ.get("RANK", 0)), count) if count > 1 else (0, 1)


def processes_here() -> int:
    """Return how many of a run's processes share this machine."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", 1))) if launched()[1] > 1 else 1


def local_rank() -> int:
    """Return this process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched()[1] > 1 else 0


def launcher(processes: int) -> list[str]:
    """Return the words after ``python`` that start a module in several processes of this machine.

    Args:
        processes: How many; with 1 the module is started as it is.
    """
    if processes == 1:
        return ["-m"]
    return [
        *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)),
        *("--num_machines", "1", "--main_process_port", "0"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "-m"),  # the run's own settings say both
    ]
