"""Device, precision and threads, decided in one place; and what the process has used of them."""

from __future__ import annotations

import os
import resource
import sys
import threading
import warnings
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.launch import launched, local_rank, processes_here
from trainers.lending import gpu_is_real
from trainers.run_folder import fitting, read_json, write_json

CACHED_PICTURES = 16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(config: RunConfig) -> str:
    """Return the device to run on.

    Raises:
        InputError: A GPU was asked for that is not there, or one GPU for several processes.
    """
    several = launched()[1] > 1
    if several and ":" in config.device:
        raise InputError(
            f"'device' names one GPU, {config.device}, but the run has {launched()[1]} processes, and each "
            "takes its own; use auto or cuda."
        )
    if config.device == "auto" and not (torch.cuda.is_available() and gpu_is_real()):
        return "cpu"
    if config.device in ("auto", "cuda") and several:
        return f"cuda:{local_rank() % max(1, torch.cuda.device_count())}"
    if config.device == "auto":
        return "cuda"
    if config.device.startswith("cuda"):
        number = int(config.device.partition(":")[2] or 0)
        if number >= torch.cuda.device_count():
            raise InputError(
                f"'device' asks for {config.device}, but this machine has {torch.cuda.device_count()} GPUs; "
                "use auto or cpu."
            )
    return config.device


def choose_dtype(config: RunConfig, device: str) -> torch.dtype:
    """Return the precision of rollouts and training.

    ``auto`` is bfloat16 where the hardware multiplies it natively, else float32: emulated bfloat16 is
    slower than float32.
    """
    if config.dtype != "auto":
        return DTYPES[config.dtype]
    if device.startswith("cuda"):
        return gpu_precision()
    return torch.bfloat16 if native_bfloat16() else torch.float32


@dataclass(frozen=True)
class Machine:
    """What a run's first session found, recorded for those that follow.

    Attributes:
        device: Kind of device, ``cpu`` or ``cuda``.
        dtype: Precision, a key of ``DTYPES``.
        threads: CPU threads of each process.
    """

    device: str = ""
    dtype: str = ""
    threads: int = 0


def settled(config: RunConfig, device: str, record: Path) -> RunConfig:
    """Return settings with the precision and the threads that the run's first session had, and record them.

    Both decide the last bits of every picture, and what is left to the machine may be another on the next
    one. Another kind of device has a precision of its own.

    Args:
        config: The settings as asked for.
        device: Where this session works.
        record: The run's record of its machine.

    Raises:
        FaultError: The record cannot be written.
    """
    first = Machine(**fitting(read_json(record) or {}, Machine))
    kind, dtype = device.partition(":")[0], first.dtype
    if config.dtype != "auto" or first.device != kind or dtype not in DTYPES:
        dtype = str(choose_dtype(config, device)).removeprefix("torch.")
    threads = config.threads or max(0, first.threads) or _own_cores()
    if (now := Machine(kind, dtype, threads)) != first:
        write_json(record, asdict(now))
    return replace(config, dtype=dtype, threads=threads)


def gpu_precision() -> torch.dtype:
    """Return the 16-bit precision that the GPU multiplies in hardware."""
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def native_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


class _PlainAttention:
    """Attention without the fused kernels, for as long as any thread asks for it.

    The library's switch is the process's own and gives back what it found, so two threads whose contexts
    overlap would leave it switched for good, and every later picture with other last bits.
    """

    def __init__(self):
        self._guard, self._users, self._switch = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._guard:
            if not self._users:
                self._switch.enter_context(sdpa_kernel(SDPBackend.MATH))
            self._users += 1

    def __exit__(self, *_) -> None:
        with self._guard:
            self._users -= 1
            if not self._users:
                self._switch.close()


_PLAIN_ATTENTION = _PlainAttention()


def differentiable_attention(device: torch.device) -> AbstractContextManager:
    """Return the context in which attention is cheapest to differentiate.

    On CPUs the fused kernel's backward pass takes about a third of an update at the lengths of small models
    (docs/LOG.md); elsewhere the library chooses.
    """
    return _PLAIN_ATTENTION if device.type == "cpu" else nullcontext()


def decoding_batch(device: torch.device, limit: int) -> int:
    """Return how many pictures to decode at once, at most ``limit``.

    A CPU decodes a few pictures a third faster than a hundred, whose activations leave its cache
    (docs/LOG.md); a GPU wants many.
    """
    return min(limit, CACHED_PICTURES) if device.type == "cpu" else limit


def use_threads(config: RunConfig) -> int:
    """Set and return the number of CPU threads; by default this process's share of the cores."""
    torch.set_num_threads(config.threads or _own_cores())
    return torch.get_num_threads()


def _own_cores() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // processes_here())


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and advice off the screen; errors still raise.

    Nor may a library ask at the terminal whether to run the code that came with a checkpoint.
    """
    import diffusers
    import transformers
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0

    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|peft|huggingface_hub).*")
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def forget_peak(device: torch.device) -> None:
    """Let a GPU's peak begin anew; the process's own cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory that this process has used so far, in MB (2**20 bytes).

    Args:
        device: A GPU, whose memory is then meant, or the CPU.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
