"""Where the seconds of training go: a clock that the engine's heavy calls report to while one is running.

``phase`` costs nothing measurable while nobody measures. Time inside an inner phase does not count for the
outer one. Work on the inference threads counts by its share of them, so the phases and the rest, which is the
engine's own, add up to the time on the wall. On a GPU the clock waits for the device at every border, which
slows the run: the split is to be measured apart from the speed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

import torch

PHASES = (
    "rollout_network",  # the merged network, sampling
    "training_forward",  # the network with its adapter
    "training_backward",
    "reference_network",  # the base model or the old policy, for the loss
    "decode",
    "reward",
    "reward_gradient",  # back through reward, decoder and, where the method says so, the network
    "optimiser",
)
OWN = ("optimiser", "engine")  # phases that are neither network, nor decoder, nor reward

_nothing = contextlib.nullcontext()
_running: Clock | None = None


class Clock:
    """Seconds by phase while it runs.

    Attributes:
        seconds: Phase → seconds on the wall.
    """

    def __init__(self, device: torch.device, threads: int):
        """Make a stopped clock.

        Args:
            device: Where the work is done.
            threads: Inference threads beside the main one.
        """
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        self._threads = max(1, threads)
        self._main = threading.get_ident()
        self._inner = threading.local()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the body's time, without that of phases inside it."""
        stack = self._stack()
        stack.append(0.0)
        started = self._now()
        try:
            yield
        finally:
            spent = self._now() - started
            own = spent - stack.pop()
            if stack:
                stack[-1] += spent
            weight = 1.0 if threading.get_ident() == self._main else 1.0 / self._threads
            with self._lock:
                self.seconds[name] += weight * own

    def _stack(self) -> list[float]:
        if not hasattr(self._inner, "stack"):
            self._inner.stack = []
        return self._inner.stack

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def phase(name: str) -> contextlib.AbstractContextManager:
    """Return the context that counts its body for one of ``PHASES``, if a clock is running."""
    return _nothing if _running is None else _running.phase(name)


def running() -> bool:
    """Whether a clock is running, so that what could overlap has to follow one another."""
    return _running is not None


@contextlib.contextmanager
def split(device: torch.device) -> Iterator[dict[str, float]]:
    """Run a clock; the mapping it yields holds seconds by phase, and ``engine`` when the body has ended."""
    global _running
    clock = Clock(device, torch.get_num_threads())
    started = time.perf_counter()
    _running = clock
    try:
        yield clock.seconds
    finally:
        _running = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        whole = time.perf_counter() - started
        clock.seconds["engine"] = whole - sum(clock.seconds.values())
